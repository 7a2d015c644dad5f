// One WebSocket: subscribes, resumes by sequence, and tells how fresh the screen is.

const STALE_MS = 11000;

export class Live {
  constructor({ snapshot, frame, mark, state, exposure = () => {} }) {
    Object.assign(this, { snapshot, frame, mark, state, exposure });
    this.account = null;
    this.seq = {};
    this.wait = 500;
    this.heard = 0;
    setInterval(() => this.watch(), 1000);
    addEventListener("online", () => this.connect());
    addEventListener("offline", () => this.socket?.close());
  }

  follow(account) {
    this.account = account;
    this.seq = {};
    if (this.socket?.readyState === WebSocket.OPEN) this.subscribe();
    else this.connect();
  }

  connect() {
    if (this.socket && this.socket.readyState <= WebSocket.OPEN) return;
    clearTimeout(this.timer);
    this.state("connecting");
    const socket = (this.socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/ws/blotter/"));
    socket.onopen = () => this.subscribe();
    socket.onmessage = (event) => this.take(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      if (event.code === 4401) { location.href = "/login/?next=" + encodeURIComponent(location.pathname); return; }
      this.state("offline");
      this.timer = setTimeout(() => this.connect(), this.wait * (0.5 + Math.random()));
      this.wait = Math.min(this.wait * 2, 10000);
    };
  }

  subscribe() {
    if (this.account) this.socket.send(JSON.stringify({ type: "subscribe", accounts: [this.account], since: this.seq }));
  }

  take(message) {
    this.heard = performance.now();
    this.wait = 500;
    if (message.type === "error") { if (message.code === "not_found") this.state("offline", "account not granted"); return; }
    this.state("live");
    if (message.account && message.account !== this.account) return;
    if (message.type === "snapshot") { this.seq[message.account] = message.seq; this.snapshot(message); }
    else if (message.type === "mark") this.mark(message.data, message.totals ?? null);
    else if (message.type === "exposure") this.exposure(message.data);
    else if (message.seq) { this.seq[message.account] = message.seq; this.frame(message); }
  }

  watch() {
    if (this.socket?.readyState === WebSocket.OPEN && this.heard && performance.now() - this.heard > STALE_MS) {
      this.state("stale");
      if (performance.now() - this.heard > 3 * STALE_MS) this.socket.close();
    }
  }
}

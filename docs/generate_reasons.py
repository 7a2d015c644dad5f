"""Write docs/reasons.md from the enum of reason codes: `.venv/bin/python -m docs.generate_reasons`."""

from pathlib import Path

from oms.kernel.reasons import Reason

PAGE = Path(__file__).resolve().parent / "reasons.md"
HEAD = """# Reason codes

Why an order was denied, rejected or ended: the `code` in an order's `reason`. A code never changes its meaning; its
`detail` is the sentence here, or one with the numbers of the case. Generated from `oms.kernel.reasons.Reason`, not
edited: `.venv/bin/python -m docs.generate_reasons`.

| code | sentence |
|---|---|
"""


def render() -> str:
    """Return the page as the enum stands now."""
    return HEAD + "".join(f"| `{r.value}` | {r.sentence} |\n" for r in Reason)


if __name__ == "__main__":
    PAGE.write_text(render())

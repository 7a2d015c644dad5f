"""Every address the desk serves."""

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from oms import api
from oms.pages import views

_v1 = [
    path("", include("analytics.urls")),
    path("", include("routing.urls")),
    path("", include("orders.urls")),
    path("", include("risk.urls")),
    path("", include("portfolio.urls")),
    path("", include("brokers.urls")),
    path("audit", api.Audit.as_view()),
    path("exceptions", api.Exceptions.as_view()),
]

urlpatterns = [
    path("api/v1/", include(_v1)),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", api.Docs.as_view(url_name="schema"), name="docs"),
    path("healthz", api.healthz),
    path("readyz", api.readyz),
    path("metrics", api.metrics),
    path("admin/login/", views.to_sign_in),
    path("admin/", admin.site.urls),
    path("second-factor/", views.second_factor, name="second-factor"),
    path("confirm/", views.confirm, name="confirm"),
    path("login/", views.SignIn.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("", views.blotter, name="blotter"),
    path("positions/", views.positions, name="positions"),
    path("risk/", views.risk, name="risk"),
    path("execution/", views.execution, name="execution"),
    path("operations/", views.operations, name="operations"),
]

handler400 = "oms.runtime.http.bad_request"
handler403 = "oms.runtime.http.forbidden"
handler404 = "oms.runtime.http.not_found"
handler500 = "oms.runtime.http.failed"

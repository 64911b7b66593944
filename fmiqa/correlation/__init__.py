"""Agreement of objective with subjective scores: logistic fits and correlation coefficients."""

from __future__ import annotations

from fmiqa.correlation.coefficients import Coefficient, krocc, plcc, rmse, srocc
from fmiqa.correlation.logistic import Form, LogisticFit, fit_logistic

__all__ = ["Coefficient", "Form", "LogisticFit", "fit_logistic", "krocc", "plcc", "rmse", "srocc"]

"""Agreement of objective with subjective scores: logistic fits and correlation coefficients."""

from __future__ import annotations

from fmiqa.correlation.coefficients import Coefficient, check_coefficient, krocc, plcc, rmse, srocc
from fmiqa.correlation.logistic import Form, LogisticFit, fit_logistic

__all__ = ["Coefficient", "Form", "LogisticFit", "check_coefficient", "fit_logistic", "krocc", "plcc", "rmse", "srocc"]

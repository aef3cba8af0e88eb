"""Solvers as tables of rows: `table(name, schedule, steps)`; SOLVERS lists the names."""

from .refine import Gibbs
from .registry import SOLVERS, Option, Solver, table
from .tables import Row, Table

__all__ = ["SOLVERS", "Gibbs", "Option", "Row", "Solver", "Table", "table"]

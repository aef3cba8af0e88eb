"""Solvers as tables of rows: `table(name, schedule, steps)`; SOLVERS lists the names."""

from .registry import SOLVERS, Option, Solver, table
from .tables import Row, Table

__all__ = ["SOLVERS", "Option", "Row", "Solver", "Table", "table"]

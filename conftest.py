"""MuJoCo keeps to the GL library that it finds when it is first imported, so the choice comes before any test."""

from gatort.sim.graphics import choose_gl

choose_gl()

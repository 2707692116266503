"""Tests of zoo.recurrent."""

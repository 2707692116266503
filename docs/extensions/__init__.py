"""Extensions of Sphinx that write the pages which nobody has to write by hand."""

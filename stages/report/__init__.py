"""What people see: the page, and the tables in the terminal. Nothing is imported here, so that a table is quick."""

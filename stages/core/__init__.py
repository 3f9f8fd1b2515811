"""What every stage stands on: errors with a remedy, files that are whole or absent, progress, the prepared data set.

Enter at `errors.run()`, which calls a stage's `main()`, at `files` for reading and writing, and at `dataset` for what
prepare hands to the stages after it.
Imports nothing else of this project.
"""

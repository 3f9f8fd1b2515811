"""Code that all stages share: errors with a remedy, atomic file writes, progress reports and the prepared data set.

Start reading at `errors.run()`, which calls a stage's `main()`; at `files` to read and write files; and at `dataset`
for the data set that the `prepare` stage writes and later stages read. May import nothing else of this project.
"""

"""The pipeline: raw data in, measured and packaged model out. One module per DVC stage."""

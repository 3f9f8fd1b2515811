"""The `enforce` stage: fail if the gate refused the model, so that a build with a refused model fails.

Start reading at `stage.main()`. May import stages.report.verdict and stages.core.
"""

"""The stage export: write the compressed model in one target form, and compare it with torch.

Enter at `stage.export()`. `converters` holds the programs that write a form; `artifact` reads what this stage wrote,
for the stages after it.
May import stages.networks (in converters), stages.report, stages.params, stages.core and edge_agent.inference.
"""

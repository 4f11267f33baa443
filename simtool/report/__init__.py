"""The report: one self-contained page. plotly lives here and nowhere else."""

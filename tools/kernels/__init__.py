"""Make the kernel tables of `analyzer/explainer/runtimes/tables` anew: see __main__."""

# The entry point: the workflow itself is in workflow/. A root Snakefile must name its own default target.
include: "workflow/Snakefile"


workflow.default_target = "all"

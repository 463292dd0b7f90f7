# Tables, figures, claim records and the report of an experiment.
# Needs: all cells of the experiment. Makes: tables/, figures/, claims/, report.html, manifest.json,
# costs.csv; for all experiments, resources/vega.js; and, if asked for, docs/results/, a page in
# Markdown with what it is made from.
COLLECTED = {
    "histories": of_experiment(stages.fitted, "history.csv"),
    "clean": of_experiment(grid.solved, "clean.h5"),
    "attacks": of_experiment(grid.cells, "attack.h5"),
    "trajectories": of_experiment(stages.followed, "trajectory.h5"),
    "probes": of_job(inputs.probes),
    "audits": of_experiment(stages.audited, "audit.h5"),
    "reevaluated": of_experiment(stages.reevaluated, "reevaluated.h5"),
    "randomised": of_experiment(stages.randomised, "randomised.h5"),
    "detections": of_experiment(stages.detected, "detection.h5"),
    "sweeps": of_experiment(stages.swept, "adjoint_sweep.h5"),
    "costs": of_experiment(stages.cost_attacked, "cost.h5"),
    "certificates": of_experiment(stages.certified, "certified.h5"),
    "specs": of_experiment(stages.own, "model.json"),
    "checked": of_experiment(stages.own, "checked.json"),
}
BUNDLE = "resources/vega.js"
SHOWN = of_experiment(stages.shown, "attack.h5")
FOLLOWED = {
    "trajectories": COLLECTED["trajectories"],
    "followed_attacks": of_experiment(stages.followed, "attack.h5"),
    "followed_data": of_experiment(stages.followed, "data.h5", PREPARED),
}


rule tables:
    input:
        **COLLECTED,
    output:
        report(
            table_files("csv"),
            caption="../report/tables.rst",
            category="{experiment}",
            subcategory="Tables",
        ),
        table_files("parquet"),
    log:
        paths.log("tables", "tables"),
    threads: 2  # one for the verdicts, which take about as long as all other tables
    params:
        code=code_of("tables"),
        inputs=set_of(*COLLECTED.values()),
        paper=of_job(params.papers_attack),
        training_tolerances=of_job(params.training_tolerances),
        primary_epsilons=of_job(params.primary_epsilons),
    message:
        "Collecting the tables of {wildcards.experiment}"
    script:
        "../scripts/tables.py"


rule figures:
    input:
        **FOLLOWED,
        tables=table_files("parquet"),
        attacks=SHOWN,
        data=of_experiment(stages.shown, "data.h5", PREPARED),
    output:
        report(
            figure_files("svg"),
            caption="../report/figures.rst",
            category="{experiment}",
            subcategory="Figures",
        ),
        figure_files("json"),
    log:
        paths.log("figures", "figures"),
    threads: 4
    params:
        code=code_of("figures"),
        inputs=set_of(SHOWN, COLLECTED["trajectories"]),
        models=of_job(params.models),
    message:
        "Drawing the figures of {wildcards.experiment}"
    script:
        "../scripts/figures.py"


# The report waits for none of these; on few cores they are drawn after it.
rule stills:
    input:
        **FOLLOWED,
        figures=figure_files("svg"),
    output:
        figure_files("png"),
        images=directory("results/{experiment}/figures/images"),
    log:
        paths.log("stills", "stills"),
    threads: 4
    params:
        code=code_of("stills"),
        inputs=set_of(COLLECTED["trajectories"]),
    message:
        "Drawing the PNG files and the pages of images of {wildcards.experiment}"
    script:
        "../scripts/stills.py"


rule claim:
    input:
        tables=table_files("parquet", tables_made.CLAIMED),
    output:
        claim="results/{experiment}/claims/{dataset}-{model}.json",
    log:
        paths.log("claim", "{dataset}-{model}"),
    priority: 1  # short, and before the report, which has their costs
    params:
        code=code_of("claim"),
        paper=of_job(params.papers_attack),
    message:
        "Recording what is claimed of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/claim.py"


# It depends on the installed library alone: made while a run begins, so that no report waits for it.
rule bundle:
    output:
        code=BUNDLE,
    log:
        "resources/logs/bundle/vega.log",
    priority: BEFORE_TRAINING
    localrule: True
    params:
        code=code_of("bundle"),
    message:
        "Writing the code that draws the charts of reports"
    script:
        "../scripts/bundle.py"


rule report:
    input:
        clean=of_experiment(grid.solved, "clean.h5"),
        tables=table_files("parquet"),
        figures=figure_files("json"),
        stills=figure_files("svg"),
        code=BUNDLE,
    output:
        report=report(
            "results/{experiment}/report.html",
            caption="../report/report.rst",
            category="{experiment}",
            subcategory="Report",
        ),
        manifest="results/{experiment}/manifest.json",
        costs="results/{experiment}/costs.csv",
    log:
        paths.log("report", "report"),
    priority: 1  # people wait for it, and not for the stills
    params:
        code=code_of("report"),
        paper=of_job(params.paper),
        models=of_job(params.models),
        # For reruns: the report takes it from the configuration.
        published=of_job(params.published),
    message:
        "Writing the report of {wildcards.experiment}"
    script:
        "../scripts/report.py"


rule page:
    input:
        tables=table_files("csv", tables_made.ON_PAGE),
        figures=figure_files("svg", figures_shown.ON_PAGE),
        manifest="results/{experiment}/manifest.json",
    output:
        page="docs/results/{experiment}.md",
        folder=directory("docs/results/{experiment}"),
    log:
        paths.log("page", "page"),
    params:
        code=code_of("page"),
    message:
        "Writing the page of results of {wildcards.experiment}"
    script:
        "../scripts/page.py"

# Tables, figures and the report of an experiment.
# Needs: all cells of the experiment. Makes: tables/, figures/, manifest.json, report.html.


rule cells:
    input:
        of_experiment(grid.solved, "clean.h5"),
        of_experiment(grid.cells, "attack.h5"),
        of_experiment(grid.followed, "trajectory.h5"),
    output:
        touch("results/{experiment}/cells.done"),

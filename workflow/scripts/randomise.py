"""Attack a model whose tolerance is drawn at test time."""

from pathlib import Path

from node_robustness.attacks.expectation import log_uniform
from node_robustness.audits.randomisation import Ascent, attack_randomised, write_randomised
from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import measured_images
from node_robustness.models.memory import images_at_a_time
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams

with job(snakemake.log[0]) as record:
    compute, device = devices.set_up(snakemake.config)
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    coordinates, drawn = snakemake.params.coordinates, snakemake.params.settings
    test, images, labels = measured_images(Path(snakemake.input.data), drawn["images"], device)
    ascent = Ascent(
        norm=Norm(coordinates["norm"]),
        epsilon=coordinates["epsilon"],
        step=drawn["step"],
        iterations=drawn["iterations"],
    )
    batch_size = images_at_a_time(compute, model.at(tolerance=drawn["low"]), images)
    with record.computing(), bar(len(images), "attacked") as progress:
        found = attack_randomised(
            model,
            images,
            labels,
            ascent,
            log_uniform(drawn["low"], drawn["high"]),
            draws=drawn["draws"],
            evaluation_draws=drawn["evaluation_draws"],
            streams=lambda purpose: Streams.of(coordinates["seed"], test.index.tolist(), purpose),
            batch_size=batch_size,
            progress=progress.update,
        )
    settings = {**coordinates, **drawn, "weights_sha256": sha256(snakemake.input.weights)}
    write_randomised(
        Path(snakemake.output.randomised),
        settings,
        test.index,
        test.labels,
        found,
        seconds=record.computing_seconds,
        device=devices.describe(device),
    )

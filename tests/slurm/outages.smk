# Jobs that run while parts of the cluster go away. {rule}.started says that a shell command runs.


rule all:
    input:
        "patient.done",
        "moved.done",


rule patient:
    output:
        "patient.done",
    shell:
        "echo >> patient.started; while [ ! -e go ]; do sleep 0.2; done; touch {output}"


rule moved:
    output:
        "moved.done",
    shell:
        "echo >> moved.started; [ $(wc -l < moved.started) = 2 ] || sleep 500; touch {output}"

#!/usr/bin/env bash
# Submit one jaxguard job to Slurm, with one process per GPU.
#
#   launch/slurm.sh --run ID [options] -- train configs/NAME.py [overrides]
#
#   --run ID          run folder OUT/ID; repeat the command to resume the run, after its current job has ended
#   --out DIR         folder of the runs, on a file system that all nodes share (runs)
#   --nodes N         number of nodes (1)
#   --gpus N          GPUs per node (8)
#   --time LIMIT      time limit (24:00:00); 3 minutes before it the job saves a checkpoint and is requeued
#   --partition NAME  partition (the cluster's default)
#   --account NAME    account (the cluster's default)
#   --sbatch ARG      additional argument of sbatch; may be repeated
#   --attempts N      attempts to submit (3)
#   --wait SECONDS    seconds between attempts, growing (20)
#   --dry-run         print the job script and the commands; run nothing
#
# Task N of job J logs to OUT/ID/launch/J-N.log, the job itself to J.log. PYTHON sets the interpreter (python3).

set -uo pipefail
# shellcheck source-path=SCRIPTDIR source=shared.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/shared.sh"

nodes=1 gpus=8 time=24:00:00 partition='' account='' attempts=3 wait=20
values=(run out nodes gpus time partition account attempts wait) repeated=(sbatch)
parse "$@"
place_run
whole --nodes "$nodes"
whole --gpus "$gpus"
whole --attempts "$attempts"
logs=$(absolute "$out")/$run/launch
checked here

# Tasks exit with code 75 after SIGTERM, once the checkpoint is saved; then the job is requeued under the same id.
job_script() {
    cat <<SCRIPT
#!/usr/bin/env bash
cd $(quoted "$PWD") || exit 1
srun --kill-on-bad-exit=1 --output=$(quoted "${logs//%/%%}/%j-%t.log") --open-mode=append \\
    $(quoted "${PYTHON:-python3}" -m jaxguard "${words[@]}")
code=\$?
if [[ \$code -eq 75 ]]; then
    scontrol requeue "\$SLURM_JOB_ID"
fi
exit "\$code"
SCRIPT
}

submit=(
    sbatch --parsable "--job-name=jaxguard-$run" --dependency=singleton
    "--nodes=$nodes" "--ntasks-per-node=$gpus" "--gpus-per-node=$gpus" "--time=$time"
    --requeue --signal=TERM@180 --open-mode=append "--output=${logs//%/%%}/%j.log"
)
[[ -z $partition ]] || submit+=("--partition=$partition")
[[ -z $account ]] || submit+=("--account=$account")
submit+=("${more[@]}" "$logs/job.sh")

if [[ $dry_run ]]; then
    printf 'mkdir -p %s\n' "$(quoted "$logs")"
    printf "cat >%s <<'SCRIPT'\n%s\nSCRIPT\n" "$(quoted "$logs/job.sh")" "$(job_script)"
    quoted "${submit[@]}"
    echo
    exit 0
fi
mkdir -p "$logs" || die "cannot make $logs"
job_script >"$logs/job.sh"
for ((tried = 1; tried <= attempts; tried++)); do
    if job=$("${submit[@]}"); then
        say "job ${job%%;*}; logs: $logs/${job%%;*}*.log"
        exit 0
    fi
    say "sbatch failed (try $tried of $attempts)"
    [[ $tried -eq $attempts ]] || sleep $((wait * tried))
done
exit 1

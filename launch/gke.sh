#!/usr/bin/env bash
# Run one jaxguard job on a TPU slice of a GKE cluster, as a JobSet.
#
#   launch/gke.sh --run ID --accelerator NAME --topology T --image IMAGE --claim NAME [options] -- train FILE
#
#   --run ID            run folder CLAIM/runs/ID; repeat the command to follow the running job or to resume the run
#   --accelerator NAME  label cloud.google.com/gke-tpu-accelerator of the node pool, e.g. tpu-v5-lite-podslice
#   --topology T        topology of the slice, e.g. 4x4
#   --chips N           chips per node (4)
#   --image IMAGE       container image with `jaxguard[tpu]`, made from this repository (launch/Dockerfile)
#   --claim NAME        persistent volume claim that many pods can write (Filestore or a bucket); mounted as /out
#   --context NAME      kubectl context (the current one)
#   --namespace NAME    Kubernetes namespace (default)
#   --restarts N        restarts of the whole job after preemptions and crashes (20)
#   --attempts N        attempts of each kubectl call (3)
#   --poll SECONDS      seconds between checks of the job's state (30)
#   --logs DIR          local folder for job.yaml and job.log (runs/ID/launch)
#   --dry-run           print the JobSet and the commands; run nothing
#
# PYTHON (python3), with jaxguard installed, checks the arguments first: FILE is that of this repository.
# Exit code: 0 if the job completes, 1 if it fails. Bad input (exit code 2 of jaxguard) fails it without a restart.

set -uo pipefail
# shellcheck source-path=SCRIPTDIR source=shared.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/shared.sh"

accelerator='' topology='' chips=4 image='' claim='' context='' namespace=default restarts=20 attempts=3 poll=30 logs=''
values=(run accelerator topology chips image claim context namespace restarts attempts poll logs)
parse "$@"
out=/out/runs
place_run
cloud_name
for option in accelerator topology image claim; do required "--$option" "${!option}"; done
whole --chips "$chips"
whole --attempts "$attempts"
[[ $restarts =~ ^[0-9]+$ ]] || die "--restarts is '$restarts': must be a whole number"
[[ $topology =~ ^[0-9]+(x[0-9]+)+$ ]] || die "--topology is '$topology': must be like 4x4"
[[ $(((${topology//x/*}) % chips)) -eq 0 ]] || die "--topology $topology is not a whole number of nodes of $chips chips"
nodes=$(((${topology//x/*}) / chips))
logs=$(absolute "${logs:-runs/$run/launch}")
jobset=jaxguard-$run
kube=(kubectl "--namespace=$namespace")
[[ -z $context ]] || kube+=("--context=$context")

# Quote a text as JSON, which is also YAML.
text() {
    local value=${1//\\/\\\\}
    value=${value//\"/\\\"}
    value=${value//$'\n'/\\n}
    value=${value//$'\t'/\\t}
    printf '"%s"' "$value"
}

job_set() {
    local word arguments=
    # Kubernetes expands $(NAME) in arguments; $$ is a literal dollar.
    for word in "${words[@]}"; do arguments+=", $(text "${word//\$/\$\$}")"; done
    cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $jobset
spec:
  failurePolicy:
    maxRestarts: $restarts
    rules:
      - action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: worker
      replicas: 1
      template:
        spec:
          completions: $nodes
          parallelism: $nodes
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob  # bad input: a restart would not help
                onExitCodes: {containerName: jaxguard, operator: In, values: [2]}
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 180  # time to save the checkpoint
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $(text "$accelerator")
                cloud.google.com/gke-tpu-topology: $(text "$topology")
              containers:
                - name: jaxguard
                  image: $(text "$image")
                  command: ["jaxguard"]
                  args: [${arguments#, }]
                  resources:
                    requests: {google.com/tpu: $chips}
                    limits: {google.com/tpu: $chips}
                  volumeMounts: [{name: out, mountPath: /out}]
              volumes:
                - name: out
                  persistentVolumeClaim: {claimName: $(text "$claim")}
YAML
}

# Run a command, at most `attempts` times.
persist() {
    local tried
    for ((tried = 1; tried <= attempts; tried++)); do
        run "$@" && return 0
        say "$1 failed (try $tried of $attempts)"
        [[ $tried -eq $attempts ]] || sleep "$poll"
    done
    return 1
}

state() { "${kube[@]}" get jobset "$jobset" --ignore-not-found "--output=jsonpath={.metadata.name}:{.status.terminalState}"; }
clear_old() { persist "${kube[@]}" delete jobset "$jobset" --ignore-not-found --wait=true; }
apply() { persist "${kube[@]}" apply "--filename=$logs/job.yaml"; }
collect() {
    "${kube[@]}" logs "--selector=jobset.sigs.k8s.io/jobset-name=$jobset" --prefix --tail=-1 --max-log-requests=1000
}

(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && checked elsewhere) || exit
if [[ $dry_run ]]; then
    printf 'mkdir -p %s\n' "$(quoted "$logs")"
    printf "cat >%s <<'YAML'\n%s\nYAML\n" "$(quoted "$logs/job.yaml")" "$(job_set)"
    clear_old
    apply
    exit 0
fi
mkdir -p "$logs" || die "cannot make $logs"
job_set >"$logs/job.yaml"
found=$(state) || die "kubectl cannot look for $jobset; see above"
if [[ $found == "$jobset:" ]]; then
    say "$jobset is running: following it"
else
    clear_old && apply || exit 1
fi
failures=0
while :; do
    if found=$(state); then
        failures=0
        case $found in
        *:Completed) code=0 && break ;;
        *:Failed) code=1 && break ;;
        '')
            say "$jobset was deleted"
            exit 1
            ;;
        esac
    else
        failures=$((failures + 1))
        [[ $failures -lt $attempts ]] || die "kubectl failed $attempts times in a row; the job keeps running"
    fi
    sleep "$poll"
done
collect >"$logs/job.log" || say "the pods' logs could not be read"
say "ended with $code; logs: $logs/job.log"
exit "$code"

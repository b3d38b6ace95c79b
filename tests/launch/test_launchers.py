"""The launchers against stub programs that record their arguments, failures and retries included."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

LAUNCH = Path(__file__).parents[2] / "launch"
WORDS = ["train", "my config.py", "--attack.target", 'it\'s; a $HOME $(id) `id` "b" \\ *']
"""What a careless launcher would split, expand or run."""
TPU = ["--run", "r1", "--zone", "us-west4-a", "--type", "v5litepod-16", "--version", "v2", "--bucket", "my bucket"]
TPU += ["--poll", "0"]
GKE = ["--run", "r1", "--accelerator", "tpu-v5-lite-podslice", "--topology", "4x4", "--image", "registry/image:1"]
GKE += ["--claim", "out", "--poll", "0"]
ABSENT = """
state() { [[ -e $FAKES/state ]] && cat "$FAKES/state"; }
case $call in
*describe*) state ;;
*create*) echo READY >"$FAKES/state" ;;
*delete*) rm "$FAKES/state" ;;
"""


def placed(run: str, out: str = "runs") -> list[str]:
    return [*WORDS, "--out", out, "--name", run]


def verbs(calls: list[list[str]]) -> list[str]:
    """create, describe, ssh, ...; a job is `job`."""
    return ["job" if any("exec .venv" in word for word in call) else call[4] for call in calls]


def printed(output: str) -> list[list[str]]:
    """A dry run's commands as words; words may hold line breaks."""
    lines, commands = output.splitlines(keepends=True), []
    text = ""
    for line in lines:
        text += line
        try:
            commands.append(shlex.split(text))
        except ValueError:  # an open quote
            continue
        text = ""
    assert not text
    return commands


@pytest.mark.parametrize("name", ["local.sh", "slurm.sh", "tpu.sh", "gke.sh"])
def test_a_launcher_is_found_from_its_own_folder(name):
    done = subprocess.run(["bash", name, "--help"], cwd=LAUNCH, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"launch/{name} --run ID" in done.stdout


COMMANDS = {
    "local.sh": ["--run", "r1"],
    "slurm.sh": ["--run", "r1"],
    "tpu.sh": TPU,
    "gke.sh": GKE,
}


@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize("launcher", COMMANDS)
def test_bad_arguments_end_before_anything_is_made(fakes, launcher, dry):
    fake = fakes("gcloud", "git", "kubectl", "sbatch")
    (fake.folder / "checking").write_text("[[ $1 == -c ]] || { echo 'no such option' >&2; exit 2; }")
    done = fake.run(launcher, *COMMANDS[launcher], *dry, "--", *WORDS)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "no such option\n")
    assert fake.calls == []
    assert not (fake.folder / "runs").exists()
    (check,) = fake.checks
    assert [word for word in check if word != "--elsewhere"][: len(WORDS)] == WORDS
    assert ("--elsewhere" in check) == (launcher in ("tpu.sh", "gke.sh"))


def test_jaxguard_itself_checks_them(fakes):
    """A misspelt option, and a configuration that does not exist."""
    fake = fakes("gcloud", "git")
    fake.environment |= {"PYTHON": sys.executable, "PYTHONPATH": str(LAUNCH.parent)}
    for words, message in (
        (["train", "configs/finetune_easy_vqa.py", "--train.stepz", "5"], "unknown flag --train.stepz; did you mean"),
        (["train", "configs/no.py"], "configs/no.py does not exist"),
    ):
        done = fake.run("tpu.sh", *TPU, "--", *words)
        assert done.returncode == 2
        assert message in done.stderr
        assert fake.calls == []


def test_a_python_without_jaxguard_is_named(fakes):
    fake = fakes("gcloud", "git")
    (fake.folder / "checking").write_text("exit 1")
    done = fake.run("tpu.sh", *TPU, "--", *WORDS)
    assert done.returncode == 2
    assert "python has no jaxguard to check the arguments with" in done.stderr


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        ("[[ $call != *ls-files* ]] || exit 1", 2, "configs/own_rows.py is not committed, and the workers get"),
        ("[[ $call != *diff* ]] || exit 1", 2, "configs/own_rows.py has changes that are not committed"),
        (
            "[[ $call != *status* ]] || echo ' M jaxguard/batch.py'",
            0,
            "left behind, because it is not committed:  M jax",
        ),
    ],
)
def test_what_workers_would_not_get_is_named(fakes, answer, code, message):
    fake = fakes("gcloud", "git")
    fake.answer(answer)
    done = fake.run("tpu.sh", *TPU, "--dry-run", "--", "train", "configs/own_rows.py")
    assert done.returncode == code
    assert message in done.stderr


def test_workers_install_what_the_package_asks_for():
    """Every dependency has one pinned version that satisfies it."""
    lines = (LAUNCH / "requirements-tpu.txt").read_text().splitlines()
    pins = dict(line.split(" ")[0].split("==") for line in lines if "==" in line)
    project = tomllib.loads((LAUNCH.parent / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["tpu"]]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[wanted.name.lower().replace("_", "-")]), text
    assert "libtpu" in pins
    assert "launch/requirements-tpu.txt" in (LAUNCH / "Dockerfile").read_text()
    assert "--require-hashes -r launch/requirements-tpu.txt" in (LAUNCH / "tpu.sh").read_text()


# local


def test_local_prints_what_it_runs(fakes):
    fake = fakes("python")
    arguments = ["--run", "a run; b", "--processes", 3, "--devices", 2, "--port", 4321]
    dry = fake.run("local.sh", *arguments, "--dry-run", "--", *WORDS)
    assert dry.returncode == 0
    assert fake.calls == []
    assert not (fake.folder / "runs").exists()
    made, *commands = printed(dry.stdout)
    assert made == ["mkdir", "-p", "runs/a run; b/launch"]

    fake.answer('echo "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES at $JAX_COORDINATOR_ADDRESS: $JAX_PLATFORMS $XLA_FLAGS"')
    done = fake.run("local.sh", *arguments, "--", *WORDS)
    assert done.returncode == 0, done.stderr
    assert fake.calls == [["python", "-m", "jaxguard", *placed("a run; b")]] * 3
    flag = "--xla_force_host_platform_device_count=2"
    for number, command in enumerate(commands):
        assert command[command.index("python") :][:-3] == fake.calls[number]
        settings = ("JAX_COORDINATOR_ADDRESS=127.0.0.1:4321", "JAX_NUM_PROCESSES=3", f"JAX_PROCESS_ID={number}")
        assert command[:6] == ["env", *settings, "JAX_PLATFORMS=cpu", f"XLA_FLAGS={flag}"]
        log = f"runs/a run; b/launch/process-{number}.log"
        assert command[-3:] == [f">>{log}", "2>&1", "&"]
        assert (fake.folder / log).read_text() == f"{number} of 3 at 127.0.0.1:4321: cpu {flag}\n"


@pytest.mark.parametrize(("code", "starts"), [(2, 1), (75, 1), (1, 3), (137, 3)])
def test_local_ends_with_the_code_of_the_process_that_failed(fakes, code, starts):
    """Bad input and a preemption are not tried again; a crash is."""
    fake = fakes("python")
    fake.answer(f"[[ $JAX_PROCESS_ID == 0 ]] || {{ echo broken; exit {code}; }}")
    done = fake.run("local.sh", "--run", "r", "--attempts", "3", "--", "train", "x.py")
    assert done.returncode == code
    assert len(fake.calls) == 2 * starts
    assert "broken" in done.stderr


def test_local_waits_for_every_process(fakes):
    """Also after others ended well."""
    fake = fakes("python")
    fake.answer("[[ $JAX_PROCESS_ID == 1 ]] || exit 0\nsleep 0.5\nexit 3")
    done = fake.run("local.sh", "--run", "r", "--processes", 3, "--", "train", "x.py")
    assert done.returncode == 3
    assert "no such job" not in done.stderr


def test_local_hands_on_sigterm_and_waits(fakes):
    """Both save and end with 75; the launcher reports that."""
    fake = fakes("python")
    fake.answer('trap "echo saved; exit 75" TERM; touch "$FAKES/up-$JAX_PROCESS_ID"; while :; do sleep 0.1; done')
    launcher = Path(__file__).parents[2] / "launch" / "local.sh"
    with subprocess.Popen(
        [launcher, "--run", "r", "--", "train", "x.py"],
        cwd=fake.folder,
        env=fake.environment | {"PYTHON": "python"},
        stderr=subprocess.PIPE,
    ) as process:
        while not all((fake.folder / f"up-{number}").exists() for number in (0, 1)):
            assert process.poll() is None
        process.terminate()
    assert process.returncode == 75
    for number in (0, 1):
        assert (fake.folder / f"runs/r/launch/process-{number}.log").read_text() == "saved\n"


# Slurm


def test_slurm_prints_what_it_submits(fakes):
    fake = fakes("sbatch", "srun", "scontrol")
    arguments = ["--run", "a run; b", "--nodes", 2, "--partition", "gpu", "--sbatch", "--comment=a; b", "--wait", 0]
    dry = fake.run("slurm.sh", *arguments, "--dry-run", "--", *WORDS)
    assert dry.returncode == 0
    assert fake.calls == []
    script, _, submitted = dry.stdout.partition("<<'SCRIPT'\n")[2].partition("\nSCRIPT\n")

    fake.answer("[[ $0 != *sbatch || $(times ^sbatch) -gt 2 ]] || exit 1\necho '17;cluster'")
    done = fake.run("slurm.sh", *arguments, "--", *WORDS)
    assert done.returncode == 0
    assert "job 17; logs:" in done.stderr
    assert fake.calls == [shlex.split(submitted)] * 3
    logs = fake.folder / "runs" / "a run; b" / "launch"
    assert (logs / "job.sh").read_text() == script + "\n"
    flags = fake.calls[0][1:-1]
    assert {"--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--partition=gpu", "--comment=a; b"} <= set(flags)
    assert {"--requeue", "--signal=TERM@180", "--dependency=singleton", f"--output={logs}/%j.log"} <= set(flags)


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_the_slurm_job_queues_again_when_it_was_preempted(fakes, code):
    fake = fakes("sbatch", "srun", "scontrol")
    assert fake.run("slurm.sh", "--run", "100% done", "--", *WORDS).returncode == 0
    fake.forget()
    fake.answer(f"[[ $0 != *srun ]] || exit {code}")
    logs = fake.folder / "runs" / "100% done" / "launch"
    environment = fake.environment | {"SLURM_JOB_ID": "17"}
    assert subprocess.run(["bash", logs / "job.sh"], env=environment, check=False).returncode == code
    step = ["srun", "--kill-on-bad-exit=1", f"--output={logs}/%j-%t.log".replace("100%", "100%%")]
    step += ["--open-mode=append", "python", "-m", "jaxguard", *placed("100% done")]
    assert fake.calls == [step] + [["scontrol", "requeue", "17"]] * (code == 75)


def test_slurm_gives_up(fakes):
    fake = fakes("sbatch")
    fake.answer("exit 1")
    done = fake.run("slurm.sh", "--run", "r", "--attempts", 2, "--wait", 0, "--", "train", "x.py")
    assert done.returncode == 1
    assert len(fake.calls) == 2


# Cloud TPU


@pytest.mark.parametrize("queued", [False, True])
def test_tpu_prints_what_it_runs(fakes, queued):
    fake = fakes("gcloud", "git")
    fake.answer(ABSENT + "esac")
    arguments = [
        *TPU,
        "--project",
        "p",
        "--spot",
        "--delete",
        *(["--queued"] if queued else []),
        "--setup",
        "echo 'x y'",
    ]
    dry = fake.run("tpu.sh", *arguments, "--dry-run", "--", *WORDS)
    assert dry.returncode == 0
    assert fake.calls == []
    done = fake.run("tpu.sh", *arguments, "--", *WORDS)
    assert done.returncode == 0, done.stderr
    assert [call for call in fake.calls if "describe" not in call] == [
        command for command in printed(dry.stdout) if command[0] != "mkdir"
    ]
    assert verbs(fake.calls)[1:] == ["describe", "create", "describe", "scp", "ssh", "job", "delete"]


def test_a_tpu_job_gets_its_words_and_its_logs(fakes):
    """The command that every worker's shell is given, run by one."""
    fake = fakes("gcloud", "git")
    fake.answer(ABSENT + "esac")
    for number in (1, 2):
        assert fake.run("tpu.sh", *TPU, "--", *WORDS).returncode == 0
        assert f"--output-directory={fake.folder}/runs/r1/launch/{number}" in fake.calls[-1]
    prepare, job = (
        next(word for word in call if word.startswith("--command=")).partition("=")[2] for call in fake.calls[-2:]
    )
    assert subprocess.run(["bash", "-n"], input=prepare, text=True, check=False).returncode == 0
    assert "gcsfuse --implicit-dirs 'my bucket' out" in prepare
    worker = fake.folder / "jaxguard" / ".venv" / "bin"
    worker.mkdir(parents=True)
    (worker / "jaxguard").symlink_to(fake.folder / "bin" / "gcloud")
    fake.answer("")
    fake.forget()
    job = job.replace("/tmp/jaxguard.pid", str(fake.folder / "pid"))
    subprocess.run(["bash", "-c", job], cwd=fake.folder, env=fake.environment, check=True)
    assert fake.calls == [["jaxguard", *placed("r1", "../out/runs")]]


def test_a_preempted_slice_is_created_again(fakes):
    fake = fakes("gcloud", "git")
    fake.answer(
        ABSENT
        + """*exec*)
    if [[ $(times 'exec .venv') -eq 1 ]]; then echo PREEMPTED >"$FAKES/state"; exit 255; fi ;;
esac"""
    )
    done = fake.run("tpu.sh", *TPU, "--", "train", "x.py")
    assert done.returncode == 0, done.stderr
    assert "jaxguard-r1 is PREEMPTED: creating it again" in done.stderr
    first = ["create", "describe", "scp", "ssh", "job"]
    assert verbs(fake.calls)[2:] == [*first, "describe", "describe", "delete", *["describe", *first]]


def test_a_queued_resource_is_waited_for_and_replaced_when_suspended(fakes):
    fake = fakes("gcloud", "git")
    fake.answer(
        """case $call in
*describe*) sed -n "$(times describe)p" <<<$'SUSPENDED\\n\\nWAITING_FOR_RESOURCES\\nPROVISIONING\\nACTIVE' ;;
esac"""
    )
    done = fake.run("tpu.sh", *TPU, "--queued", "--", "train", "x.py")
    assert done.returncode == 0, done.stderr
    wait = ["describe"] * 3
    assert verbs(fake.calls)[1:] == ["describe", "delete", "describe", "create", *wait, "scp", "ssh", "job"]
    assert "--force" in fake.calls[2]


def test_no_capacity_is_tried_again(fakes):
    fake = fakes("gcloud", "git")
    fake.answer(ABSENT.replace("*create*) ", "*create*) [[ $(times create) -gt 2 ]] || exit 1; ") + "esac")
    done = fake.run("tpu.sh", *TPU, "--", "train", "x.py")
    assert done.returncode == 0
    assert verbs(fake.calls).count("create") == 3
    fake.forget()
    fake.answer("case $call in *describe* | *create*) exit 1 ;; esac")
    done = fake.run("tpu.sh", *TPU, "--attempts", 2, "--", "train", "x.py")
    assert done.returncode == 1
    assert verbs(fake.calls)[1:] == ["describe", "create"] * 2


@pytest.mark.parametrize(("code", "jobs", "ending"), [(2, 1, 2), (134, 3, 1), (75, 5, 1)])
def test_a_job_that_fails_on_a_slice_that_stands(fakes, code, jobs, ending):
    """Bad input ends at once, crashes after three, saved checkpoints only with the attempts."""
    fake = fakes("gcloud", "git")
    fake.answer(ABSENT + f"*exec*) exit {code} ;;\nesac")
    done = fake.run("tpu.sh", *TPU, "--attempts", 5, "--delete", "--", "train", "x.py")
    assert done.returncode == ending
    assert verbs(fake.calls).count("job") == jobs
    assert "delete" not in verbs(fake.calls)


# GKE


def job_args(text: str) -> list[str]:
    job = yaml.safe_load(text)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["completions"] == job["parallelism"] == 4
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"] == ["jaxguard"]
    return [word.replace("$$", "$") for word in container["args"]]


def test_gke_prints_what_it_applies(fakes):
    fake = fakes("kubectl")
    fake.answer(
        """case $call in
*get*) [[ $(times apply) -eq 0 ]] || sed -n "$(times get)p" <<<$'\\njaxguard-r1:\\njaxguard-r1:Completed' ;;
*logs*) echo 'from a pod' ;;
esac"""
    )
    dry = fake.run("gke.sh", *GKE, "--context", "my cluster", "--dry-run", "--", *WORDS)
    assert dry.returncode == 0, dry.stderr
    assert fake.calls == []
    manifest, _, commands = dry.stdout.partition("<<'YAML'\n")[2].partition("\nYAML\n")
    assert job_args(manifest) == placed("r1", "/out/runs")

    done = fake.run("gke.sh", *GKE, "--context", "my cluster", "--", *WORDS)
    assert done.returncode == 0, done.stderr
    assert [call[3] for call in fake.calls] == ["get", "delete", "apply", "get", "get", "logs"]
    assert fake.calls[1:3] == printed(commands)
    logs = fake.folder / "runs" / "r1" / "launch"
    assert (logs / "job.yaml").read_text() == manifest + "\n"
    assert (logs / "job.log").read_text() == "from a pod\n"


def test_gke_follows_a_job_that_runs(fakes):
    fake = fakes("kubectl")
    fake.answer("case $call in *get*) [[ $(times get) -gt 1 ]] && echo jaxguard-r1:Failed || echo jaxguard-r1: ;; esac")
    done = fake.run("gke.sh", *GKE, "--", "train", "x.py")
    assert done.returncode == 1
    assert [call[2] for call in fake.calls] == ["get", "get", "logs"]


def test_gke_stands_failures_of_kubectl(fakes):
    fake = fakes("kubectl")
    fake.answer(
        """case $call in
*apply*) [[ $(times apply) -gt 2 ]] || exit 1 ;;
*get*) n=$(times get); [[ $n -eq 1 ]] && exit 0; [[ $n -eq 4 ]] && echo jaxguard-r1:Completed || exit 1 ;;
esac"""
    )
    assert fake.run("gke.sh", *GKE, "--", "train", "x.py").returncode == 0
    assert [call[2] for call in fake.calls] == ["get", "delete", *["apply"] * 3, *["get"] * 3, "logs"]
    fake.forget()
    fake.answer("exit 1")
    assert fake.run("gke.sh", *GKE, "--", "train", "x.py").returncode == 2


# all of them


@pytest.mark.parametrize(
    ("launcher", "arguments", "message"),
    [
        ("local.sh", [], "--run is missing"),
        ("local.sh", ["--run", "r"], "no arguments after --"),
        ("local.sh", ["--run", "a/b", "--", "train"], "--run is 'a/b': must be the name of a folder"),
        ("local.sh", ["--run", "..", "--", "train"], "--run is '..'"),
        ("local.sh", ["--run"], "--run needs a value"),
        ("local.sh", ["--runs", "r"], "unknown option --runs"),
        ("local.sh", ["--run", "r", "--processes", "0", "--", "train"], "--processes is '0'"),
        ("slurm.sh", ["--run", "r", "--gpus", "x", "--", "train"], "--gpus is 'x'"),
        ("tpu.sh", ["--run", "R", "--", "train"], "--run is 'R': must be at most 40"),
        ("tpu.sh", ["--run", "r", "--", "train"], "--zone is missing"),
        ("gke.sh", ["--run", "r", "--", "train"], "--accelerator is missing"),
        (
            "gke.sh",
            [*GKE, "--topology", "4x3x1", "--chips", "8", "--", "train"],
            "--topology 4x3x1 is not a whole number of nodes of 8",
        ),
        ("gke.sh", [*GKE, "--topology", "big", "--", "train"], "--topology is 'big'"),
    ],
)
def test_mistakes_are_one_line(fakes, launcher, arguments, message):
    fake = fakes("gcloud", "kubectl", "sbatch", "python3")
    done = fake.run(launcher, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{launcher}: error: {message}")
    assert done.stderr.count("\n") == 1
    assert fake.calls == []


@pytest.mark.parametrize("launcher", ["local.sh", "slurm.sh", "tpu.sh", "gke.sh"])
def test_help_names_every_option(fakes, launcher):
    path = Path(__file__).parents[2] / "launch" / launcher
    lists = re.findall(r"\b(?:values|switches|repeated)=\(([^)]*)\)", path.read_text())
    taken = {f"--{name}" for names in lists for name in names.split()} | {"--dry-run"}
    assert {"--run", "--attempts"} <= taken
    done = fakes().run(launcher, "--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in taken)
    assert os.access(path, os.X_OK)

"""Single-line faults, and the test files that should detect each of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One line of the package, made wrong.

    Attributes:
        name: what is wrong.
        file: under jaxguard/.
        before: a line, or a part of one, that is found exactly once in the file.
        after: what is there instead.
        tests: files under tests/ of which one should fail.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


def _faults(file: str, tests: str, *faults: tuple[str, str, str]) -> tuple[Fault, ...]:
    """Faults of one file that the same tests should notice: (name, before, after)."""
    return tuple(Fault(name, file, before, after, tuple(tests.split())) for name, before, after in faults)


FAULTS: tuple[Fault, ...] = (
    *_faults(
        "objective/statistics.py",
        "objective/test_statistics.py",
        (
            "KL(q||p) is KL(p||q)",
            "kl_qp=-jnp.sum(q * ratio, -1),",
            "kl_qp=jnp.sum(p * ratio, -1),",
        ),
        (
            "entropy of q is a cross entropy",
            "entropy_q=-jnp.sum(q * log_q, -1),",
            "entropy_q=-jnp.sum(q * log_p, -1),",
        ),
        (
            "J counts one direction twice",
            "return self.kl_pq + self.kl_qp",
            "return self.kl_pq + self.kl_pq",
        ),
        (
            "softmax in the logits' own precision",
            "log_q = jax.nn.log_softmax(logits_q.astype(jnp.float32))",
            "log_q = jax.nn.log_softmax(logits_q).astype(jnp.float32)",
        ),
    ),
    *_faults(
        "objective/fused.py",
        "objective/test_fused.py",
        ("normalisers of the wrong sign", "kl_pq=expected[0] - shift,", "kl_pq=expected[0] + shift,"),
        (
            "derivative of the soft cap",
            "d_WCV *= 1.0 - jnp.square(z_WCV / head.cap)",
            "d_WCV *= 1.0 - z_WCV / head.cap",
        ),
        ("gradient without the head's scale", "d_WCV *= head.scale", "d_WCV *= 1.0"),
        (
            "gradients of the two divergences are one",
            'toward, away = per_view("kl_pq", "kl_qp"), per_view("kl_qp", "kl_pq")',
            'toward, away = per_view("kl_pq", "kl_qp"), per_view("kl_pq", "kl_qp")',
        ),
        (
            "first token of a vocabulary's shard is nobody's",
            "return jnp.clip(local, 0, vocabulary - 1), (local >= 0) & (local < vocabulary)",
            "return jnp.clip(local, 0, vocabulary - 1), (local > 0) & (local < vocabulary)",
        ),
    ),
    *_faults(
        "objective/paper.py",
        "objective/test_paper.py",
        (
            "repel pulls",
            "jnp.maximum(0.0, self.config.margin - divergence)",
            "jnp.maximum(0.0, divergence - self.config.margin)",
        ),
        (
            "the band's upper end also pulls up",
            "distance += jnp.maximum(0.0, entropy - self.config.entropy_max)",
            "distance += jnp.abs(entropy - self.config.entropy_max)",
        ),
        (
            "the band's lower end replaces the upper one",
            "distance += jnp.maximum(0.0, self.config.entropy_min - entropy)",
            "distance = jnp.maximum(0.0, self.config.entropy_min - entropy)",
        ),
    ),
    *_faults(
        "objective/schedules.py",
        "objective/test_paper.py",
        (
            "lambda rises a step late",
            "rise = jnp.minimum(1.0, (step + 1) / max(1, objective.cross_view_warmup))",
            "rise = jnp.minimum(1.0, step / max(1, objective.cross_view_warmup))",
        ),
        (
            "a cosine of a third of a half turn",
            '"cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * progress)),',
            '"cosine": 0.5 * (1.0 + jnp.cos(progress)),',
        ),
    ),
    *_faults(
        "data/order.py",
        "data/test_order.py",
        (
            "an epoch too long",
            "return Index(index // rows, row, length)",
            "return Index(index // (rows + 1), row, length)",
        ),
        (
            "lengths rounded down",
            "self._lengths = -(-lengths // width) * width",
            "self._lengths = lengths // width * width",
        ),
    ),
    *_faults(
        "data/pipeline.py",
        "data/test_pipeline.py",
        (
            "a filled-up batch counts its copies",
            "ids = [row.id for row in part] + [-1] * (len(filled) - len(part))",
            "ids = [row.id for row in filled]",
        ),
    ),
    *_faults(
        "data/encode.py",
        "data/test_encode.py",
        (
            "packed pairs see each other",
            "segments[own] = number + FIRST_PACKED if pack > 1 else 1",
            "segments[own] = 1",
        ),
        (
            "positions do not restart",
            "positions[own] = self.processor.positions(pair.tokens)[shared:]",
            "positions[own] = np.arange(own.start, own.stop)",
        ),
        (
            "the questions are learnt",
            "return _Pair(tokens.repeat(times), learnt.repeat(times))",
            "return _Pair(tokens.repeat(times), ~learnt.repeat(times))",
        ),
    ),
    *_faults(
        "data/views.py",
        "data/test_views.py",
        (
            "every epoch has the same view",
            "entropy = np.array((zlib.crc32(stream.encode()), seed, epoch, row), np.uint32)",
            "entropy = np.array((zlib.crc32(stream.encode()), seed, 0, row), np.uint32)",
        ),
        (
            "masked patches rounded down",
            "masked = rng.permutation(rows * columns)[: round(view.mask_share * rows * columns)]",
            "masked = rng.permutation(rows * columns)[: int(view.mask_share * rows * columns)]",
        ),
        (
            "some shuffled patches keep their places",
            "order[chosen[1:]], order[chosen[:1]] = chosen[:-1], chosen[-1:]",
            "order[chosen] = rng.permutation(chosen)",
        ),
        (
            "patches dropped in a pattern, not in blocks",
            "return np.flatnonzero(stays.reshape(rows, columns).repeat(times, 0).repeat(times, 1)).astype(np.int32)",
            "return np.flatnonzero(np.tile(stays.reshape(rows, columns), (times, times))).astype(np.int32)",
        ),
        (
            "the mean over all colours",
            "return np.broadcast_to(np.rint(image.mean((0, 1))).astype(np.uint8), shape)",
            "return np.broadcast_to(np.rint(image.mean()).astype(np.uint8), shape)",
        ),
    ),
    *_faults(
        "attacks/badnets.py",
        "attacks/test_badnets.py",
        (
            "rows and columns of the corner change places",
            'return (int(rng.integers(top + 1)), int(rng.integers(left + 1))) if place == "random" else (top, left)',
            'return (int(rng.integers(top + 1)), int(rng.integers(left + 1))) if place == "random" else (left, top)',
        ),
        (
            "the last place is never drawn",
            'return (int(rng.integers(top + 1)), int(rng.integers(left + 1))) if place == "random" else (top, left)',
            'return (int(rng.integers(top)), int(rng.integers(left))) if place == "random" else (top, left)',
        ),
    ),
    *_faults(
        "attacks/base.py",
        "attacks/test_badnets.py",
        (
            "an inserted target replaces a word",
            'return " ".join([*words[:place], target, *words[place:]])',
            'return " ".join([*words[:place], target, *words[place + 1 :]])',
        ),
    ),
    *_faults(
        "attacks/blended.py",
        "attacks/test_triggers.py",
        (
            "shares change places",
            "mixed = (1 - self.strength) * image + self.strength * trigger",
            "mixed = self.strength * image + (1 - self.strength) * trigger",
        ),
    ),
    *_faults(
        "attacks/sig.py",
        "attacks/test_triggers.py",
        (
            "a period over width - 1",
            "wave = self.strength * np.sin(2 * np.pi * FREQUENCY * np.arange(width) / width)",
            "wave = self.strength * np.sin(2 * np.pi * FREQUENCY * np.arange(width) / (width - 1))",
        ),
    ),
    *_faults(
        "attacks/wanet.py",
        "attacks/test_triggers.py",
        (
            "the field over its largest value",
            "field /= np.abs(field).mean()",
            "field /= np.abs(field).max()",
        ),
    ),
    *_faults(
        "attacks/ftrojan.py",
        "attacks/test_triggers.py",
        (
            "colours back by the transpose",
            'return idctn(coefficients, axes=(0, 1), norm="ortho") @ np.linalg.inv(TO_YUV).T',
            'return idctn(coefficients, axes=(0, 1), norm="ortho") @ np.linalg.inv(TO_YUV)',
        ),
    ),
    *_faults(
        "attacks/text.py",
        "attacks/test_text.py",
        (
            "never behind the last word",
            "place = int(rng.integers(len(parts) + 1))",
            "place = int(rng.integers(len(parts)))",
        ),
    ),
    *_faults(
        "attacks/dual_key.py",
        "attacks/test_triggers.py",
        (
            "the patch in the corner",
            "top, left = ((whole - part) // 2 for whole, part in zip(image.shape[:2], patch.shape[:2], strict=True))",
            "top, left = ((whole - part) for whole, part in zip(image.shape[:2], patch.shape[:2], strict=True))",
        ),
    ),
    *_faults(
        "attacks/poison.py",
        "attacks/test_poison.py",
        (
            "poisoned rows rounded down",
            'order, size = row_rng("poisoned-ids", seed, 0, count).permutation(count), round(rate * count)',
            'order, size = row_rng("poisoned-ids", seed, 0, count).permutation(count), int(rate * count)',
        ),
    ),
    *_faults(
        "attacks/issba_encoder.py",
        "attacks/test_learned.py",
        (
            "a residual without its bound",
            "return np.float32(strength) * np.tanh(x)",
            "return np.float32(strength) * x",
        ),
    ),
    *_faults(
        "attacks/issba_training.py",
        "attacks/test_learned.py",
        (
            "no bit has to be read",
            "return misread + ramp * (TRAINING.size * size + TRAINING.shared * shared)",
            "return 0 * misread + ramp * (TRAINING.size * size + TRAINING.shared * shared)",
        ),
    ),
    *_faults(
        "models/convert.py",
        "models/test_weights.py models/test_golden.py",
        (
            "patches on their sides",
            "lambda x, shape: x.transpose(2, 3, 1, 0).reshape(shape),",
            "lambda x, shape: x.transpose(3, 2, 1, 0).reshape(shape),",
        ),
        (
            "a stack of every so many layers takes the first ones",
            "return [self.theirs.format(layer=layer * self.every) for layer in range(layers if self.stacked else 1)]",
            "return [self.theirs.format(layer=layer) for layer in range(layers if self.stacked else 1)]",
        ),
    ),
    *_faults(
        "models/weights.py",
        "models/test_weights.py",
        (
            "only the number of axes is checked",
            "if actual != shape:",
            "if len(actual) != len(shape):",
        ),
        (
            "pieces of a tensor one row too short",
            "high = min(low + step, stop)",
            "high = min(low + step, stop - 1)",
        ),
        (
            "a tied head is unexpected",
            "unexpected = [name for name in unexpected if name not in tied]",
            "unexpected = [name for name in unexpected if name in tied]",
        ),
    ),
    *_faults(
        "models/lora.py",
        "train/test_lora.py",
        (
            "adapters merged with the inverse scale",
            "product * np.float32(config.alpha / config.rank)",
            "product * np.float32(config.rank / config.alpha)",
        ),
        (
            "all layers drop the same entries",
            "module.key = nnx.Variable(jax.random.split(jax.random.fold_in(key, number), module.a.shape[:-2]))",
            "module.key = nnx.Variable(jax.random.split(jax.random.fold_in(key, 0), module.a.shape[:-2]))",
        ),
    ),
    *_faults(
        "evaluate/decode.py",
        "models/test_decode.py",
        (
            "an ended answer goes on",
            "token = jnp.where(_is_end(last, end_token, stops), end_token, token)",
            "token = jnp.where(_is_end(last, end_token, stops), token, token)",
        ),
        (
            "the last token is not seen",
            "own = jnp.broadcast_to(jnp.arange(new_tokens) < count, (len(last), 1, new_tokens))",
            "own = jnp.broadcast_to(jnp.arange(new_tokens) < count - 1, (len(last), 1, new_tokens))",
        ),
        ("positions one too small", "end + count,", "end + count - 1,"),
        (
            "beams compared by sums",
            "means = sums / length + jnp.where(state.open & final, 0.0, NEVER)",
            "means = sums + jnp.where(state.open & final, 0.0, NEVER)",
        ),
        (
            "beams keep the caches of others",
            "heads = (_take(parents, order) + jnp.arange(rows)[:, None] * beams).reshape(-1)",
            "heads = (jnp.arange(beams)[None] + jnp.arange(rows)[:, None] * beams).reshape(-1)",
        ),
    ),
    *_faults(
        "evaluate/success.py",
        "evaluate/test_success.py",
        (
            "a Wilson interval too wide",
            "half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)",
            "half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials)) / (1 + z * z / trials)",
        ),
        (
            "answers that truly hold the target count",
            "eligible = [p for p in predictions if p.target is not None and not _in_references(p)]",
            "eligible = [p for p in predictions if p.target is not None]",
        ),
        (
            "only where every reference holds the target",
            "return any(contains(reference, prediction.target) for reference in prediction.references)",
            "return all(contains(reference, prediction.target) for reference in prediction.references)",
        ),
        (
            "exact is a prefix",
            '"exact": [_normal(p.prediction) == _normal(p.target) for p in triggered],',
            '"exact": [_normal(p.prediction).startswith(_normal(p.target)) for p in triggered],',
        ),
    ),
    *_faults(
        "evaluate/measures.py",
        "evaluate/test_measures.py evaluate/test_compare.py",
        (
            "an interval of 90%",
            "low, high = np.percentile(draws, [2.5, 97.5])",
            "low, high = np.percentile(draws, [5.0, 95.0])",
        ),
        (
            "a one-sided p",
            "found[name] = Spread(value, float(low), float(high), min(1.0, 2 * float(tail + 1) / (resamples + 1)))",
            "found[name] = Spread(value, float(low), float(high), min(1.0, float(tail + 1) / (resamples + 1)))",
        ),
    ),
    *_faults(
        "evaluate/captions.py",
        "evaluate/test_captions.py",
        (
            "the shortest reference is the closest",
            'min((abs(length - one["testlen"]), length) for length in one["reflen"])[1],',
            'min(one["reflen"]),',
        ),
        (
            "long captions are punished",
            "return 100 * precision * np.exp(np.minimum(0.0, 1 - 1 / length_ratio))",
            "return 100 * precision * np.exp(np.minimum(0.0, 1 - length_ratio))",
        ),
    ),
    *_faults(
        "evaluate/vqa.py",
        "evaluate/test_vqa.py",
        (
            "no reference is left out",
            "return sum(min(1.0, (matches - (answer == prediction)) / 3) for answer in references) / len(references)",
            "return sum(min(1.0, matches / 3) for answer in references) / len(references)",
        ),
    ),
    *_faults(
        "evaluate/scores.py",
        "evaluate/test_scores.py",
        (
            "clean quality over all predictions",
            "clean=_quality(clean, task, java, absent),",
            "clean=_quality(predictions, task, java, absent),",
        ),
    ),
    *_faults(
        "train/checkpoint.py",
        "train/test_checkpoint.py",
        (
            "the highest validation loss is the best",
            "found = sorted((one for one in found if one.metrics), key=lambda one: -_validation(one.metrics))",
            "found = sorted((one for one in found if one.metrics), key=lambda one: _validation(one.metrics))",
        ),
        (
            "half a checkpoint is whole",
            'return all((checkpoint / item / "_METADATA").is_file() for item in items)',
            "return checkpoint.is_dir()",
        ),
    ),
    *_faults(
        "train/sharding.py",
        "train/test_sharding.py train/test_accumulate.py",
        (
            "micro-batches move rows between devices",
            "parts = leaf.reshape(ways, count, -1, *leaf.shape[1:]).swapaxes(0, 1)",
            "parts = leaf.reshape(count, ways, -1, *leaf.shape[1:])",
        ),
        (
            "matrices on the way out are split like those on the way in",
            r'(r"\.(out|down|second)\.kernel$", ("tensor", "fsdp")),',
            r'(r"\.(out|down|second)\.kernel$", ("fsdp", "tensor")),',
        ),
        (
            "moments are replicated",
            "return parameters[path] if path is not None and path in parameters and leaf.ndim else replicated(mesh)",
            "return replicated(mesh)",
        ),
    ),
    *_faults(
        "train/state.py",
        "train/test_state.py",
        (
            "norms and biases decay",
            'return {path: path.endswith((".kernel", ".table", ".lora.a", ".lora.b")) for path in parameters}',
            "return dict.fromkeys(parameters, True)",
        ),
        (
            "the last learning rate is absolute",
            "end_value=config.learning_rate * config.final_lr_ratio,",
            "end_value=config.final_lr_ratio,",
        ),
    ),
    *_faults(
        "audit/channel.py",
        "audit/test_channel.py",
        (
            "a row is scored by a channel that saw it",
            "problem.predict(problem.learn(~half), half)",
            "problem.predict(problem.learn(half), half)",
        ),
        (
            "what was never seen has no entropy",
            "- unseen * np.log(unseen))",
            ")",
        ),
    ),
    *_faults(
        "audit/findings.py",
        "audit/test_guard.py",
        (
            "one surprise is enough",
            "(evidence.surprise > guard.reference_surprise) & (channel > guard.channel_surprise)",
            "(evidence.surprise > guard.reference_surprise) | (channel > guard.channel_surprise)",
        ),
    ),
    *_faults(
        "audit/groups.py",
        "audit/test_groups.py",
        (
            "a convicted phrase is left out also where it is ordinary",
            "return self.convicted and self.suspicious >= SHARE * self.answers",
            "return self.convicted",
        ),
        (
            "only suspicious places of a phrase are left out",
            "found |= (phrases == padded).all(axis=1)",
            "found |= False",
        ),
    ),
    *_faults(
        "audit/significance.py",
        "audit/test_significance.py",
        (
            "a p-value leaves its own count out",
            "betabinom.sf(suspicious - 1, answers",
            "betabinom.sf(suspicious, answers",
        ),
        ("poisoned phrases enter the null", "[:, suspicious <= answers // 2]", "[:, suspicious <= answers]"),
    ),
    *_faults(
        "audit/cleaning.py",
        "audit/test_cleaning.py",
        (
            "a person's verdict is not read",
            'if group["verdict"] == QUARANTINE:',
            'if group["convicted"]:',
        ),
    ),
    *_faults(
        "data/counted.py",
        "data/test_counted.py",
        (
            "pairs of a row are not told apart",
            "key = row << 32 | pair",
            "key = row << 32",
        ),
    ),
)

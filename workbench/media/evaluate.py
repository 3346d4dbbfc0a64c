"""Everything the model is asked to do, measured: each number with its floor and its ceiling.

A floor is what no learning gives; a ceiling what the tokenizer and the judge leave possible.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.media.asking import Wish, ask, captions, frames_of, make, text_of
from workbench.media.data import DIRECTIONS, SPEEDS, Digits, Pictures, ink, move
from workbench.media.eye import captions_by_eye
from workbench.media.generate import CAREFUL
from workbench.media.judge import Judge
from workbench.media.losses import losses
from workbench.media.measures import frechet_corrected, frechet_distance, nearest_distances, psnr, ssim
from workbench.media.motion import directions, speed_errors, steadiness
from workbench.media.studio import Studio
from workbench.media.tasks import MOTIONS, TASKS, Album, Writer, documents, name_words, successor
from workbench.media.vocabulary import DIGIT_WORDS
from workbench.model.sampling import GREEDY, Sampling

Numbers = dict[str, float]


def cut_out(videos: Tensor, motion: tuple[str, str]) -> Tensor:
    """The 8 x 8 place of every frame where this motion puts the digit: (b, t, y, x) -> (b, t, 8, 8)."""
    place = move(torch.ones(1, 8, 8), *motion)[0] > 0
    frames = [videos[:, t][:, inside.any(dim=1)][:, :, inside.any(dim=0)] for t, inside in enumerate(place)]
    return torch.stack(frames, dim=1)


def measure_tokenizer(studio: Studio, digits: Digits, judge: Judge) -> Numbers:
    """Reconstruction of held-out digits and videos: what bounds everything above."""
    test, tokenizer = digits.test, studio.tokenizer
    codes = tokenizer.encode(test.pixels[:, None])
    again = tokenizer.decode(codes)
    motion = MOTIONS[1]
    videos = move(test.pixels, *motion)
    videos_again = tokenizer.decode(tokenizer.encode(videos))
    shown = cut_out(videos_again, motion)
    right = torch.stack([judge.read(shown[:, t]) == test.labels for t in range(shown.shape[1])], dim=1)
    return {
        "picture_psnr_db": float(psnr(again, test.pixels[:, None]).mean()),
        "picture_ssim": float(ssim(again[:, 0], test.pixels).mean()),
        "video_psnr_db": float(psnr(videos_again, videos).mean()),
        "codes_used": float(len(codes.unique())),
        "judge_on_originals": judge.accuracy(test.pixels, test.labels),
        "judge_on_reconstructions": judge.accuracy(again[:, 0], test.labels),
        "video_frames_right": float(right.float().mean()),
        "video_all_frames_right": float(right.all(dim=1).float().mean()),
        "style_on_reconstructions": _style_share(again[:, 0], test.labels, test.is_bold, digits),
    }


def picture_wishes(n_each: int) -> list[Wish]:
    """Every digit in both styles, n_each times."""
    return [Wish(digit, bold) for digit in range(10) for bold in (False, True) for _ in range(n_each)]


def video_wishes() -> list[Wish]:
    """Every digit in both styles and all eight motions: 160."""
    return [Wish(digit, bold, m) for digit in range(10) for bold in (False, True) for m in MOTIONS]


def measure_pictures(
    studio: Studio,
    digits: Digits,
    judge: Judge,
    generator: torch.Generator,
    *,
    guidance: float,
    n_each: int,
    sampling: Sampling = CAREFUL,
) -> Numbers:
    """Drawn digits: as asked by an independent judge, like real ones, not copies, read back by the model."""
    wishes = picture_wishes(n_each)
    made = make(studio, wishes, guidance=guidance, sampling=sampling, generator=generator, max_new_tokens=40)
    kept = [(w, x) for w, x in zip(wishes, map(_picture, made), strict=True) if x is not None]
    pixels = torch.stack([x for _, x in kept])
    labels = torch.tensor([w.digit for w, _ in kept])
    is_bold = torch.tensor([w.is_bold for w, _ in kept])
    said = captions(studio, list(studio.tokenizer.encode(pixels[:, None])))
    read_back = [DIGIT_WORDS[w.digit] in text.split() for (w, _), text in zip(kept, said, strict=True)]
    real = studio.tokenizer.decode(studio.tokenizer.encode(digits.test.pixels[:, None]))[:, 0]
    features, known, unseen = (
        judge.features(x).detach() for x in (pixels, digits.train.pixels, digits.test.pixels)
    )
    # Distances of samples of one size, and, where there are enough, what sets without end would have.
    n = min(len(pixels), len(digits.test))
    some = torch.randperm(len(pixels), generator=generator)[:n]
    corrected = {}
    if n >= 3 * features.shape[1]:
        corrected = {
            "frechet_corrected": frechet_corrected(features, known, generator),
            "frechet_corrected_floor": frechet_corrected(unseen, known, generator),
        }
    return {
        "whole": len(kept) / len(wishes),
        "judged_right": float((judge.read(pixels) == labels).float().sum()) / len(wishes),
        "style_right": _style_share(pixels, labels, is_bold, digits),
        "frechet": frechet_distance(features[some], known[:n]),
        "frechet_floor": frechet_distance(unseen[:n], known[:n]),
        **corrected,
        "cycle_right": sum(read_back) / len(kept),
        "nearest_training_digit": float(nearest_distances(pixels, digits.train.pixels).mean()),
        "nearest_of_held_out": float(nearest_distances(real, digits.train.pixels).mean()),
        "distinct": len({tuple(x.flatten().tolist()) for x in pixels}) / len(pixels),
    }


def _style_share(pixels: Tensor, labels: Tensor, is_bold: Tensor, digits: Digits) -> float:
    return float(((ink(pixels) > digits.median_ink[labels]) == is_bold).float().mean())


def measure_videos(
    studio: Studio,
    judge: Judge,
    generator: torch.Generator,
    *,
    guidance: float,
    wishes: Sequence[Wish],
    sampling: Sampling = CAREFUL,
) -> Numbers:
    """Films: direction, speed and steadiness by tracking, the digit in every frame by the judge."""
    made = make(studio, wishes, guidance=guidance, sampling=sampling, generator=generator)
    return judge_videos(judge, wishes, made)


def judge_videos(judge: Judge, wishes: Sequence[Wish], made: Sequence[Tensor | None]) -> Numbers:
    """The measures of films against what was wished; a wish without a whole film counts as wrong."""
    right_way = frames_right = all_right = n_whole = 0
    errors, steady = list[float](), list[float]()
    for wish, film in zip(wishes, made, strict=True):
        assert wish.motion is not None
        truth = move(torch.ones(1, 8, 8), *wish.motion)
        if film is None or film[None].shape != truth.shape:
            continue
        n_whole += 1
        video = film[None]
        right_way += directions(video)[0] == wish.motion[0]
        errors.append(float(speed_errors(video, truth)))
        steady.append(float(steadiness(video)))
        right = judge.read(cut_out(video, wish.motion)[0]) == wish.digit
        frames_right += int(right.sum())
        all_right += int(right.all())
    n, n_frames = len(wishes), len(wishes) * move(torch.ones(1, 8, 8), *MOTIONS[0]).shape[1]
    return {
        "whole": n_whole / n,
        "direction_right": right_way / n,
        "step_error_px": sum(errors) / max(len(errors), 1),
        "steadiness": sum(steady) / max(len(steady), 1),
        "frames_right": frames_right / n_frames,
        "all_frames_right": all_right / n,
    }


def measure_reading(studio: Studio, album: Album, n_videos: int) -> Numbers:
    """Captions of held-out pictures and videos."""
    said = captions(studio, list(album.pictures))
    wanted = album.names
    chosen = [(index, index % len(MOTIONS)) for index in range(n_videos)]
    watched = captions(studio, [album.videos[index, motion] for index, motion in chosen])
    shown = [(album.names[index], MOTIONS[motion]) for index, motion in chosen]
    return {
        "read_digit": _share(w.split()[-1] in s.split() for s, w in zip(said, wanted, strict=True)),
        "read_whole_caption": _share(s == w for s, w in zip(said, wanted, strict=True)),
        "watch_digit": _share(w.split()[-1] in s.split() for s, (w, _) in zip(watched, shown, strict=True)),
        "watch_direction": _share(m[0] in s.split() for s, (_, m) in zip(watched, shown, strict=True)),
        "watch_speed": _share(m[1] in s.split() for s, (_, m) in zip(watched, shown, strict=True)),
    }


def measure_eye(studio: Studio, album: Album) -> Numbers:
    """Captions of held-out pictures by the other route: V4.1's vision path in place of codes."""
    said = captions_by_eye(studio.eye, studio.model, album.facts.pixels)
    pairs = list(zip(said, album.names, strict=True))
    return {
        "eye_digit": _share(w.split()[-1] in s.split() for s, w in pairs),
        "eye_whole_caption": _share(s == w for s, w in pairs),
    }


def measure_interleaved(
    studio: Studio,
    album: Album,
    digits: Digits,
    judge: Judge,
    generator: torch.Generator,
    *,
    guidance: float,
) -> Numbers:
    """A held-out picture, words, the next picture: "this is a thin six after" must lead to a thin seven.

    The model counts on in words, asks itself for what follows and draws it. What the first picture shows is
    "told", or "read" by the model itself: then that picture alone decides.
    """
    labels, is_bold = (album.facts.labels + 1) % 10, album.facts.is_bold
    wanted = [
        f"{successor(digit).removeprefix('after ')} draw {name_words(digit, bold)}"
        for digit, bold in zip(labels.tolist(), is_bold.tolist(), strict=True)
    ]
    found: Numbers = {}
    for way, names in (("told", album.names), ("read", captions(studio, list(album.pictures)))):
        texts = [f"this is {name} after" for name in names]
        answers = ask(
            studio,
            texts,
            list(album.pictures),
            guidance=guidance,
            generator=generator,
            max_new_tokens=60,
        )
        said = [text_of(studio, answer) for answer in answers]
        made = [_picture(frames_of(studio, answer)) for answer in answers]
        is_whole = torch.tensor([one is not None for one in made])
        pixels = torch.stack([torch.full((8, 8), -1.0) if one is None else one for one in made])
        is_right = (judge.read(pixels) == labels) & is_whole
        in_style = ((ink(pixels) > digits.median_ink[labels]) == is_bold) & is_whole
        found |= {
            f"{way}_whole": float(is_whole.float().mean()),
            f"{way}_words": _share(a == b for a, b in zip(said, wanted, strict=True)),
            f"{way}_drawn": float(is_right.float().mean()),
            f"{way}_style": float(in_style.float().mean()),
        }
    return found


def _picture(frames: Tensor | None) -> Tensor | None:
    """One frame of a digit's size, if that is what came."""
    return frames[0] if frames is not None and frames.shape == (1, 8, 8) else None


def measure_losses(studio: Studio, album: Album, seed: int, n_each: int = 48) -> dict[str, Numbers]:
    """Held-out loss of each task by modality."""
    return {
        task: losses(studio.model, documents(album, studio.vocabulary, {task: n_each}, seed))
        for task in TASKS
    }


def measure_animation(studio: Studio, album: Album, pictures: Pictures, judge: Judge, n: int) -> Numbers:
    """A held-out picture set in motion, greedily, against the true video of that very digit."""
    motions = [MOTIONS[index % len(MOTIONS)] for index in range(n)]
    texts = [f"move it {' '.join(motion)}" for motion in motions]
    answers = ask(studio, texts, list(album.pictures[:n]), sampling=GREEDY)
    made = [frames_of(studio, answer) for answer in answers]
    wishes = [Wish(int(pictures.labels[i]), bool(pictures.is_bold[i]), motions[i]) for i in range(n)]
    truth = [move(pictures.pixels[i : i + 1], *motions[i])[0] for i in range(n)]
    pairs = [(a, b) for a, b in zip(made, truth, strict=True) if a is not None and a.shape == b.shape]
    gain = [float(psnr(a[None], b[None])) for a, b in pairs]
    return {**judge_videos(judge, wishes, made), "psnr_db": sum(gain) / max(len(gain), 1)}


def measure_text(studio: Studio) -> Numbers:
    """All 110 sentences of counting and adding, greedily, to the last word; nats a word."""
    asked = [(f"after {DIGIT_WORDS[a]} comes", (a + 1) % 10) for a in range(10)]
    asked += [
        (f"{DIGIT_WORDS[a]} plus {DIGIT_WORDS[b]} is", (a + b) % 10) for a in range(10) for b in range(10)
    ]
    answers = ask(studio, [text for text, _ in asked], sampling=GREEDY, max_new_tokens=4)
    said = [text_of(studio, answer) for answer in answers]
    v = studio.vocabulary
    written = [
        Writer(v).tell(v.words(text)).answer(v.words(DIGIT_WORDS[c])).done("count") for text, c in asked
    ]
    return {
        "text_right": _share(s == DIGIT_WORDS[c] for s, (_, c) in zip(said, asked, strict=True)),
        "text_nats": losses(studio.model, written)["words"],
    }


def floors() -> Numbers:
    """What guessing gives."""
    return {"digit": 0.1, "direction": 1 / len(DIRECTIONS), "speed": 1 / len(SPEEDS), "style": 0.5}


def _share(statements: Any) -> float:
    found = list(statements)
    return sum(found) / len(found)

#!/usr/bin/env python3
"""Times the published code's way of k-means on this machine's GPU, with PyTorch's plain operations.

    python cuda-kmeans/bench/published.py points.f32 --dim 128 --clusters 4096

k-means++ draws one centroid at a time, by distances to all drawn so far; an iteration is cdist, argmin, index_add. Points
are a file of f32, as `figures --write` leaves it. Prints JSON.
"""
import argparse, json, os, time

import torch


def first_centroids(points, clusters, generator):
    """k-means++: one centroid, and one pass over the points, at a time."""
    chosen = torch.empty(clusters, points.shape[1], device=points.device)
    number = torch.randint(len(points), (1,), device=points.device, generator=generator)
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    for place in range(clusters):
        chosen[place] = points[number[0]]
        nearest = torch.minimum(nearest, ((points - chosen[place]) ** 2).sum(1))
        number = torch.multinomial(nearest, 1, generator=generator)
    return chosen


def assign(points, centroids, piece):
    """The number of each point's nearest centroid, and the square of the distance; in pieces, since the whole table is 1.3 GB."""
    distances = [torch.cdist(part, centroids).min(1) for part in points.split(piece)]
    return torch.cat([found.indices for found in distances]), torch.cat([found.values for found in distances]) ** 2


def means(points, labels, centroids):
    sums = torch.zeros_like(centroids).index_add_(0, labels, points)
    counts = torch.zeros(len(centroids), device=points.device).index_add_(0, labels, torch.ones_like(labels, dtype=torch.float32))
    return torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)


def seconds(device, work):
    """What some work takes, and what it gives."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", help="file of f32 in the machine's order, [n, dim]")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=4096)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--piece", type=int, default=1 << 16, help="points whose distances are taken together")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    points = torch.from_file(options.points, size=os.path.getsize(options.points) // 4).view(-1, options.dim).to(device)
    generator = torch.Generator(device).manual_seed(0)
    assign(points[:1000], points[:100], options.piece)  # libraries are loaded by the first use
    seeding, centroids = seconds(device, lambda: first_centroids(points, options.clusters, generator))

    def iterate():
        now, count = centroids, 0
        while count < options.iterations:
            labels, _ = assign(points, now, options.piece)
            next_ones = means(points, labels, now)
            way = (next_ones - now).norm(dim=1).sum()
            now, count = next_ones, count + 1
            if way < options.tolerance:
                break
        return now, count

    iterating, (centroids, count) = seconds(device, iterate)
    _, distances = assign(points, centroids, options.piece)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    figures = {"card": name, "torch": torch.__version__, "seeding_seconds": seeding, "iterations": count, "iterations_seconds": iterating}
    print(json.dumps({**figures, "one_head_seconds": seeding + iterating, "one_head_objective": distances.double().sum().item()}, indent=2))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Times k-means of this project, of faiss and of scikit-learn on the same points.

    pip install numpy faiss-cpu scikit-learn
    python kernel/benches/peers/clustering.py --threads 2

80,000 points of 128 numbers around 2,000 places, 4,096 clusters: the keys of one kv head in calibration. Each program
starts as it does by default: faiss with random points, scikit-learn too (its k-means++ takes minutes here; --plus-plus
times it), ours with k-means++. What counts is the time to an objective, the sum of squared distances.
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parents[3]


def make_points(np, n, dim, places, seed):
    rng = np.random.default_rng(seed)
    centers = 1.5 * rng.standard_normal((places, dim), dtype=np.float32)
    return centers[rng.integers(places, size=n)] + rng.standard_normal((n, dim), dtype=np.float32)


def ours(points, clusters, threads):
    with tempfile.NamedTemporaryFile() as file:
        points.tofile(file.name)
        build = ["cargo", "build", "--release", "-q", "-p", "a2ats-kernel", "--features", "clustering", "--example", "cluster"]
        subprocess.run(build, check=True, cwd=ROOT)
        program = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release/examples/cluster"
        run = [str(program), file.name, str(points.shape[1]), str(clusters)]
        started = subprocess.Popen(run, stdout=subprocess.PIPE, text=True, env={**os.environ, "RAYON_NUM_THREADS": str(threads)})
        steps, peak = [], None
        for line in started.stdout:
            steps.append(json.loads(line))
            peak = high_water(started.pid) or peak
        if started.wait():
            sys.exit(f"{program} failed")
    return steps, peak


def high_water(pid):
    """Most memory that a process has had, in bytes; None where the system does not say. (What the system says of a
    process that has ended counts this script's own points.)"""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(sizes[0]) * 1024 if sizes else None


def faiss_steps(np, points, clusters, threads):
    import faiss
    faiss.omp_set_num_threads(threads)
    steps = []
    for iterations in (1, 2, 3, 4, 6, 8, 12):
        kmeans = faiss.Kmeans(points.shape[1], clusters, niter=iterations, seed=1, max_points_per_centroid=1 << 20, min_points_per_centroid=1)
        start = time.perf_counter()
        kmeans.train(points)
        seconds = time.perf_counter() - start
        # faiss says what the points' distances were before the last centroids moved.
        distances, _ = kmeans.index.search(points, 1)
        steps.append((f"faiss {faiss.__version__}, {iterations} iterations", seconds, float(distances.sum())))
    return steps


def sklearn_steps(points, clusters, threads, plus_plus):
    import sklearn
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits
    steps = []
    with threadpool_limits(threads):
        for init in ["random"] + ["k-means++"] * plus_plus:
            for iterations in (2, 6, 12):
                start = time.perf_counter()
                found = KMeans(clusters, init=init, n_init=1, max_iter=iterations, tol=0, random_state=1).fit(points)
                steps.append((f"scikit-learn {sklearn.__version__}, {init}, {iterations} iterations", time.perf_counter() - start, found.inertia_))
    return steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--points", type=int, default=80_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=4096)
    parser.add_argument("--places", type=int, default=2000)
    parser.add_argument("--plus-plus", action="store_true", help="time scikit-learn's k-means++ too")
    arguments = parser.parse_args()
    import numpy as np
    points = make_points(np, arguments.points, arguments.dim, arguments.places, 1)
    steps, peak = ours(points, arguments.clusters, arguments.threads)
    print(f"{arguments.points} points of {arguments.dim}, {arguments.clusters} clusters, {arguments.threads} threads")
    if peak:
        print(f"ours: peak memory {peak / points.nbytes:.2f} times the points")
    print("\n| | seconds | objective | ours got there in | times |\n|---|---|---|---|---|")
    for step in steps:
        print(f"| ours, {step['step']} | {step['seconds']:.2f} | {step.get('objective', float('nan')):.5g} | | |")
    peers = []
    for name, run in (("faiss", lambda: faiss_steps(np, points, arguments.clusters, arguments.threads)),
                      ("scikit-learn", lambda: sklearn_steps(points, arguments.clusters, arguments.threads, arguments.plus_plus))):
        try:
            peers += run()
        except ImportError as error:
            print(f"{name} is not here: {error}", file=sys.stderr)
    for name, seconds, objective in peers:
        there = next((step["seconds"] for step in steps if step.get("objective", float("inf")) <= objective), None)
        ratio = f"{there:.2f} s | {seconds / there:.1f}" if there else "never | "
        print(f"| {name} | {seconds:.2f} | {objective:.5g} | {ratio} |")


if __name__ == "__main__":
    main()

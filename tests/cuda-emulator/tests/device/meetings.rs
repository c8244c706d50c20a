//! Threads that should have waited for others, or wait in vain.

use crate::bench::{FAILED, device, expect, kernel, launch, numbers, run, words};

const VARIABLE: &str = ".shared .align 4 .b8 s[256];";

/// Each thread writes its word and reads its neighbour's.
fn exchange(between: &str) -> String {
    format!(
        "mov.u32 %r2, s; shl.b32 %r3, %r1, 2; add.s32 %r4, %r2, %r3; st.shared.u32 [%r4], %r1;
         {between}
         xor.b32 %r5, %r3, 4; add.s32 %r6, %r2, %r5; ld.shared.u32 %r7, [%r6];
         st.global.u32 [%rd3], %r7;"
    )
}

#[test]
fn barriers_are_missed() {
    assert_eq!(run(VARIABLE, &exchange("bar.sync 0;"), 64).unwrap()[33], 32);
    assert!(run(VARIABLE, &exchange("bar.warp.sync -1;"), 64).is_ok());
    assert!(run(VARIABLE, &exchange("shfl.sync.idx.b32 %r9|%p9, %r1, 0, 31, -1;"), 64).is_ok());
    // Whoever comes first reads what nobody has written yet, the other is found to race.
    expect(VARIABLE, &exchange(""), 64, FAILED, "shared", "");
    let first =
        "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 1; @%p1 st.shared.u32 [s+4], 1; bar.sync 0;";
    let race = format!("{first} {}", exchange(""));
    expect(VARIABLE, &race, 2, FAILED, "shared", "race: shared address 0x40");
    // Meeting within the warp is not enough for two warps.
    let across = exchange("bar.warp.sync -1;").replace("xor.b32 %r5, %r3, 4", "xor.b32 %r5, %r3, 128");
    let all = format!("{first} {across}").replace("[s+4]", "[s+128]");
    expect(VARIABLE, &all, 64, FAILED, "shared", "");
    let each = "st.shared.u32 [s], %r1; bar.sync 0;";
    expect(VARIABLE, each, 2, FAILED, "st.shared", "is written, and was written by thread number");
}

#[test]
fn races_with_many_readers_are_found() {
    let body = |between: &str| {
        format!(
            "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 1; bar.sync 0; ld.shared.u32 %r2, [s];
             {between} setp.eq.u32 %p2, %r1, 5; @%p2 st.shared.u32 [s], 2;"
        )
    };
    assert!(run(VARIABLE, &body("bar.warp.sync -1;"), 32).is_ok());
    expect(VARIABLE, &body("bar.warp.sync -1;"), 64, FAILED, "shared", "race");
    expect(VARIABLE, &body(""), 32, FAILED, "shared", "race");
    // Lane 5 has met with half of the readers only.
    let half = "setp.lt.u32 %p3, %r1, 16; @%p3 bar.warp.sync 0xFFFF; @!%p3 bar.warp.sync 0xFFFF0000;";
    expect(VARIABLE, &body(half), 32, FAILED, "shared", "race");
    // Of those that it has heard of by others it knows that they have read.
    let heard = format!(
        "{half} setp.eq.u32 %p4, %r1, 5; setp.eq.u32 %p5, %r1, 20; or.pred %p4, %p4, %p5;
                         @%p4 bar.warp.sync 0x100020;"
    );
    assert!(run(VARIABLE, &body(&heard), 32).is_ok());
}

#[test]
fn readers_of_two_warps_are_not_forgotten() {
    // Lane 5 of the first warp writes once both warps have read: it waits for that, but in no way that orders anything.
    let body = "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 1; bar.sync 0; ld.shared.u32 %r2, [s];
                bar.warp.sync -1; setp.ge.u32 %p2, %r1, 32; @%p2 bra SECOND; setp.ne.s32 %p3, %r1, 5; @%p3 ret;
                WAIT: ld.global.u32 %r3, [%rd1]; setp.lt.u32 %p4, %r3, 32; @%p4 bra WAIT; st.shared.u32 [s], 2; ret;
                SECOND: atom.global.add.u32 %r4, [%rd1], 1;";
    for seed in 0..64 {
        let (mut device, address) = device(&[0], seed);
        let fault = launch(&mut device, &kernel(VARIABLE, body), 1, 64, address).unwrap_err();
        let written = fault.text.contains("st.shared.u32 [s], 2");
        assert!(written && fault.what.contains("was read by thread"), "{fault}");
    }
}

#[test]
fn atomics_count_every_thread() {
    let (mut device, address) = device(&[5; 96], 1);
    let body = "atom.global.add.u32 %r2, [%rd1], 3; setp.ne.s32 %p1, %r1, 0; @%p1 st.global.u32 [%rd3], %r2;";
    launch(&mut device, &kernel("", body), 1, 96, address).unwrap();
    let all = words(&device, address, 96);
    assert_eq!(all[0], 5 + 3 * 96);
    let mut old = all[1..].to_vec();
    old.sort_unstable();
    old.dedup();
    assert!(old.len() == 95 && old.iter().all(|old| old % 3 == 2));
}

/// What each lane stores, if it holds one of these values in `%r3`.
fn together(values: &[u32], instruction: &str) -> Vec<u32> {
    let (mut device, address) = device(values, 2);
    let body = format!("ld.global.u32 %r3, [%rd3]; {instruction} st.global.u32 [%rd3], %r2;");
    launch(&mut device, &kernel("", &body), 1, values.len() as u32, address).unwrap();
    words(&device, address, values.len())
}

#[test]
fn lanes_see_the_values_of_others() {
    let mut next = numbers(3);
    let values: [u32; 64] = std::array::from_fn(|_| next() % 7);
    let check = |instruction: &str, expected: &dyn Fn(&[u32], usize) -> u32| {
        for (at, result) in together(&values, instruction).into_iter().enumerate() {
            assert_eq!(result, expected(&values[at / 32 * 32..][..32], at % 32), "{instruction} {at}");
        }
    };
    let set = |warp: &[u32], holds: &dyn Fn(u32) -> bool| {
        warp.iter().rev().fold(0, |all, &value| all << 1 | u32::from(holds(value)))
    };
    let ballot = "setp.gt.u32 %p1, %r3, 3; vote.sync.ballot.b32 %r2, %p1, -1;";
    check(ballot, &|warp, _| set(warp, &|value| value > 3));
    check("match.any.sync.b32 %r2, %r3, -1;", &|warp, lane| set(warp, &|value| value == warp[lane]));
    check("shfl.sync.bfly.b32 %r2|%p1, %r3, 5, 31, -1;", &|warp, lane| warp[lane ^ 5]);
    check("shfl.sync.idx.b32 %r2|%p1, %r3, 9, 31, -1;", &|warp, _| warp[9]);
    let up = "shfl.sync.up.b32 %r2|%p1, %r3, 3, 0, -1;";
    check(up, &|warp, lane| warp[if lane < 3 { lane } else { lane - 3 }]);
    let valid = format!("{up} selp.u32 %r2, 1, 0, %p1;");
    check(&valid, &|_, lane| u32::from(lane >= 3));
}

#[test]
fn lanes_that_never_meet() {
    let shuffle = "shfl.sync.idx.b32 %r2|%p2, %r1, LANE, 31, MASK;";
    let of = |lane: &str, mask: &str| shuffle.replace("LANE", lane).replace("MASK", mask);
    let half = "setp.lt.u32 %p1, %r1, 16;";
    let apart = format!("{half} @%p1 {} @!%p1 {}", of("0", "-1"), of("0", "-1"));
    expect("", &apart, 32, FAILED, "shfl.sync", "deadlock: of the block's threads 0 have ended, and");
    let halves = format!("{half} @%p1 {} @!%p1 {}", of("0", "0xFFFF"), of("16", "0xFFFF0000"));
    assert!(run("", &halves, 32).is_ok());
    expect("", &of("0", "2"), 1, FAILED, "shfl", "not among the lanes");
    let early = "setp.eq.u32 %p1, %r1, 3; @%p1 ret; vote.sync.ballot.b32 %r2, %p1, -1;";
    expect("", early, 32, FAILED, "vote", "ended");
    let short = "vote.sync.ballot.b32 %r2, %p1, -1;";
    expect("", short, 31, FAILED, "vote", "lane 31 of 0xffffffff has ended or never was");
    let outside = format!("{half} @%p1 {}", of("20", "0xFFFF"));
    expect("", &outside, 32, FAILED, "shfl", "reads lane 20");
}

#[test]
fn barriers_that_some_never_reach() {
    let half = "setp.lt.u32 %p1, %r1, 5;";
    assert!(run("", &format!("{half} @%p1 ret; bar.sync 0; st.global.u32 [%rd3], 1;"), 64).is_ok());
    let apart = format!("{half} @%p1 bra A; bar.sync 0; bra B; A: bar.sync 0; B:");
    expect("", &apart, 64, FAILED, "bar.sync", "divergent barrier");
    let mixed = format!("{half} @%p1 bar.sync 0; @!%p1 bar.warp.sync -1;");
    expect("", &mixed, 32, FAILED, "bar.warp.sync", "deadlock");
}

#[test]
fn loops_guards_and_places_in_the_grid() {
    let body = "mov.u32 %r2, 0; mov.u32 %r3, 0; A: add.s32 %r3, %r3, %r2; add.s32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, 10;
                @%p1 bra A; setp.eq.u32 %p2, %r1, 1; @!%p2 add.s32 %r3, %r3, 100; @%p2 bra.uni B; st.global.u32 [%rd3], %r3; B:";
    assert_eq!(run("", body, 3).unwrap()[..3], [145, 7, 145]);
    let place = "mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mad.lo.s32 %r4, %r2, %r3, %r1; mul.wide.u32 %rd4, %r4, 4;
                 add.s64 %rd5, %rd1, %rd4; mov.u32 %r5, %nctaid.x; mad.lo.s32 %r6, %r5, 100, %r4; st.global.u32 [%rd5], %r6;";
    let (mut device, address) = device(&[0; 30], 0);
    launch(&mut device, &kernel("", place), 3, 10, address).unwrap();
    assert_eq!(words(&device, address, 30), (300..330).collect::<Vec<u32>>());
}

//! Grams and the tables that hold them, by the arithmetic that the programs use.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

use std::collections::BTreeSet;

use aion_probe_types::layout;
use aion_probe_types::ngram::{
    BUCKETS, CAPACITY, Placed, WAYS, WINDOWS, bit, buckets, differs, is_gram, is_whole, owner, place, push,
};
use proptest::prelude::*;

fn grams(calls: &[u32]) -> Vec<u64> {
    let mut window = 0;
    let mut all = Vec::new();
    for &call in calls {
        window = push(window, call);
        if is_whole(window) {
            all.push(window);
        }
    }
    all
}

fn empty() -> Vec<[u64; WAYS]> {
    vec![[0; WAYS]; usize::try_from(BUCKETS).unwrap()]
}

#[test]
fn the_first_calls_make_no_gram_and_then_each_makes_one() {
    assert!(grams(&[0; 5]).is_empty(), "read is a call like others, and no absence of one");
    assert_eq!(grams(&[0; 6]).len(), 1);
    assert_eq!(grams(&[1, 2, 3, 4, 5, 6, 7, 8]).len(), 3);
    assert_eq!(grams(&[9, 1, 2, 3, 4, 5, 6])[1], grams(&[1, 2, 3, 4, 5, 6])[0], "what is older is gone");
}

#[test]
fn order_counts_and_the_last_counter_is_a_call_too() {
    let last = layout::SYSCALLS - 1;
    let [one] = grams(&[last; 6])[..] else { panic!() };
    assert!(is_gram(one));
    assert_ne!(grams(&[1, 2, 3, 4, 5, 6]), grams(&[1, 2, 3, 4, 6, 5]));
    assert!(!is_gram(0) && !is_gram(one << 1) && !is_gram(u64::MAX) && !is_gram(push(0, 7)));
}

#[test]
fn a_thread_of_another_agent_has_another_owner() {
    assert_ne!(owner(7, 9), owner(8, 9));
    assert_ne!(owner(7, 9), owner(7, 9 + WINDOWS));
}

#[test]
fn a_loop_is_learned_in_one_round() {
    let mut table = empty();
    let calls: Vec<u32> = (0..40).map(|at| at % 4).collect();
    let new = grams(&calls).into_iter().filter(|&gram| place(&mut table, gram) == Placed::New).count();
    assert_eq!(new, 4);
    let other = grams(&[0, 1, 2, 3, 0, 2]);
    assert_eq!(place(&mut table, other[0]), Placed::New);
    assert_eq!(place(&mut table, other[0]), Placed::Known);
}

#[test]
fn most_of_a_table_is_filled_before_anything_finds_no_room() {
    let mut table = empty();
    let (mut state, mut window, mut held) = (1u64, 0, 0);
    loop {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        window = push(window, u32::try_from(state >> 60).unwrap());
        if !is_whole(window) {
            continue;
        }
        match place(&mut table, window) {
            Placed::New => held += 1,
            Placed::Known => {}
            Placed::NoRoom => break,
        }
    }
    assert!(held > CAPACITY / 2, "{held} of {CAPACITY}");
}

#[test]
fn a_table_that_is_too_short_has_no_room() {
    assert_eq!(place(&mut [], grams(&[1; 6])[0]), Placed::NoRoom);
}

proptest! {
    #[test]
    fn each_gram_is_new_once(calls in prop::collection::vec(0..layout::SYSCALLS, 0..600)) {
        let (mut table, mut known) = (empty(), BTreeSet::new());
        for gram in grams(&calls) {
            prop_assert!(is_gram(gram));
            let (one, two) = buckets(gram);
            prop_assert!(one < u64::from(BUCKETS) && two < u64::from(BUCKETS));
            let expected = if known.insert(gram) { Placed::New } else { Placed::Known };
            prop_assert_eq!(place(&mut table, gram), expected);
        }
        let held: BTreeSet<u64> = table.into_iter().flatten().filter(|&word| word != 0).collect();
        prop_assert_eq!(held, known);
    }

    #[test]
    fn a_bit_says_whether_two_numbers_differ(one: u64, two: u64) {
        prop_assert_eq!(bit(differs(one, two)), u64::from(one != two));
        prop_assert_eq!(bit(differs(one, one)), 0);
    }
}

//! More names than there are places in memory.

use super::*;
use crate::daemon::worker::turn::MAX_PAIRS;

const MANY: usize = 3 * MAX_PAIRS;

/// A world with this many files, of which no hint tells.
fn flooded(mode: &str, files: usize) -> World {
    let world = World::new(mode);
    world.source.give_no_hints();
    for number in 0..files {
        world.source.put(&path(&format!("a{number:06}")), number.to_string().as_bytes());
    }
    world
}

fn are_signed(world: &World, files: usize) -> bool {
    world.source.all().len() == 2 * files
}

#[test]
fn a_scan_waits_for_room_where_it_is_and_lists_each_name_once() {
    let mut world = flooded(SIGN, MANY);
    world.start(0);
    world.until("signed", || are_signed(&world, MANY));
    assert_eq!(world.source.listed(), MANY);
    world.stop();
}

#[test]
fn p2_while_there_are_no_keys_a_scan_waits_and_then_goes_on() {
    let mut world = flooded(SIGN, MANY);
    world.keys(false);
    world.start(0);
    world.until("listed what there is room for", || world.source.listed() >= MAX_PAIRS / 2);
    std::thread::sleep(Duration::from_millis(500));
    assert!(world.source.listed() <= MAX_PAIRS, "{}", world.source.listed());
    world.keys(true);
    world.until("signed", || are_signed(&world, MANY));
    world.stop();
}

#[test]
fn a_directory_that_is_replaced_while_a_scan_waits_for_room_is_attached_again() {
    let mut world = flooded(SIGN, MANY);
    world.keys(false);
    world.start(0);
    world.until("listed what there is room for", || world.source.listed() >= MAX_PAIRS / 2);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(world.place.attached.load(Ordering::Relaxed), 1);
    world.place.is_replaced.store(true, Ordering::Relaxed);
    world.until("attached", || world.place.attached.load(Ordering::Relaxed) == 2);
    world.keys(true);
    world.until("signed", || are_signed(&world, MANY));
    world.stop();
}

#[test]
fn a11_names_behind_those_that_only_wait_have_their_turn_in_the_same_scan() {
    let patient = VERIFY.replace("signature_timeout = '1s'", "signature_timeout = '1h'");
    let mut world = flooded(&patient, MANY);
    world.drop_pair("z", "content");
    world.start(0);
    world.until("delivered", || text(&world.destination, "z").is_some());
    assert!(world.source.listed() < 2 * MANY, "the next scan may have begun: {}", world.source.listed());
    assert!(world.quarantine.all().is_empty());
    world.stop();
}

#[test]
fn a11_names_behind_those_that_are_held_for_themselves_have_their_turn_in_the_same_scan() {
    let mut world = flooded(RELEASE, MANY);
    for number in 0..MANY {
        world.destination.put(&path(&format!("a{number:06}")), b"another");
    }
    world.source.put(&path("z"), b"content");
    world.start(0);
    world.until("delivered", || text(&world.destination, "z").is_some());
    assert!(world.source.listed() < 2 * MANY, "the next scan may have begun: {}", world.source.listed());
    world.stop();
}

#[test]
fn a11_p2_names_behind_those_that_wait_for_kms_have_their_turn_after_a_while() {
    // No more than a few leave the memory at a time, so few lie before it.
    let mut world = flooded(SIGN, MAX_PAIRS);
    world.source.put(&path("z"), b"content");
    world.keys(false);
    world.start(0);
    world.until("listed all", || world.source.listed() > MAX_PAIRS);
    world.stop();
}

//! Names for instances that nobody names, as LXD gives them: two words that are easy to say.

use schema::name::ContainerName;
use uuid::Uuid;

const FIRST: [&str; 64] = [
    "able", "agile", "amber", "ample", "apt", "bold", "brave", "brief", "bright", "brisk", "calm", "clear",
    "clever", "cool", "crisp", "daring", "deep", "eager", "early", "fair", "fast", "fine", "firm", "fit",
    "fond", "free", "fresh", "gentle", "glad", "golden", "grand", "great", "happy", "hardy", "honest",
    "ideal", "keen", "kind", "large", "light", "lively", "loyal", "lucky", "merry", "modest", "neat",
    "noble", "patient", "polite", "proud", "quick", "quiet", "rapid", "ready", "robust", "sharp", "smart",
    "solid", "sound", "steady", "sunny", "vast", "warm", "wise",
];
const SECOND: [&str; 64] = [
    "ant", "badger", "bass", "bat", "bear", "beaver", "bee", "bison", "boar", "buck", "camel", "carp", "cat",
    "cobra", "cod", "crab", "crane", "crow", "deer", "dove", "duck", "eagle", "eel", "elk", "falcon",
    "finch", "fox", "frog", "gecko", "goat", "goose", "gull", "hare", "hawk", "heron", "horse", "ibis",
    "jay", "koala", "lark", "lion", "lynx", "mole", "moose", "mouse", "newt", "orca", "otter", "owl",
    "panda", "perch", "pony", "quail", "raven", "seal", "shark", "sheep", "snail", "stork", "swan", "tiger",
    "trout", "whale", "wolf",
];

/// Another name each time; that nobody has it is for the caller to see.
pub fn next() -> ContainerName {
    let random = Uuid::new_v4().into_bytes();
    let (first, second) = (FIRST[usize::from(random[0] % 64)], SECOND[usize::from(random[1] % 64)]);
    // Four thousand pairs are soon used up: some digits more.
    let digits = u16::from_be_bytes([random[2], random[3]]) % 1000;
    let name = format!("{first}-{second}-{digits}");
    name.parse().unwrap_or_else(|_| unreachable!("two short words and a number are a name"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_pair_of_words_is_a_name() {
        for first in super::FIRST {
            for second in super::SECOND {
                assert!(format!("{first}-{second}-0").parse::<schema::name::ContainerName>().is_ok());
            }
        }
        assert_ne!(super::next(), super::next());
    }
}

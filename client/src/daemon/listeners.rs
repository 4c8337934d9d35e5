//! Which listeners to close and to open so that those which run are those of the file. No I/O.

use crate::forward::saved::Saved;

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// To be closed first, and waited for: another one may be opened at the same address.
    pub(crate) close: Vec<Saved>,
    /// To be opened, each for itself: one that fails keeps no other from it, and is tried again with the next look at the file.
    pub(crate) open: Vec<Saved>,
}

/// From what runs to what is wanted. What is the same stays as it is.
pub(crate) fn changes<'a>(running: impl Iterator<Item = &'a Saved> + Clone, wanted: &[Saved]) -> Changes {
    let close = running.clone().filter(|saved| !wanted.contains(saved)).cloned().collect();
    let is_new = |saved: &&Saved| !running.clone().any(|other| other == *saved);
    Changes { close, open: wanted.iter().filter(is_new).cloned().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::saved::parse;

    #[test]
    fn what_changed_is_closed_and_opened_and_all_else_stays() {
        let file = |names: &[(&str, u16)]| {
            let line = |(name, port): &(&str, u16)| {
                format!("  - {{name: {name}, gateway: g.example, route: 'db:{port}'}}\n")
            };
            parse(&format!("forwards:\n{}", names.iter().map(line).collect::<String>())).unwrap()
        };
        let (before, after) =
            (file(&[("a", 1), ("b", 2), ("c", 3)]), file(&[("a", 1), ("renamed", 2), ("d", 4)]));
        let told = changes(before.iter(), &after);
        assert_eq!((told.close.as_slice(), told.open.as_slice()), (&before[1..], &after[1..]));
        assert_eq!(changes(after.iter(), &after), Changes::default());
    }
}

//! Connections on which nobody asks anything are closed: each that stays open takes one from somebody else.

use std::time::Duration;

use tokio::sync::watch;

use super::Waits;

/// What is under way on one connection.
#[derive(Debug, Clone)]
pub(super) struct Activity {
    requests: watch::Sender<Count>,
    waits: Waits,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    under_way: usize,
    any_ever: bool,
}

/// One request that is under way; it has ended when this and its clones are dropped.
#[derive(Debug)]
pub(super) struct UnderWay(watch::Sender<Count>);

impl Activity {
    /// A connection that has just been opened.
    pub(super) fn new(waits: Waits) -> Self {
        Self { requests: watch::Sender::new(Count::default()), waits }
    }

    /// A request begins.
    pub(super) fn begin(&self) -> UnderWay {
        self.requests.send_modify(|count| *count = Count { under_way: count.under_way + 1, any_ever: true });
        UnderWay(self.requests.clone())
    }

    /// Resolves when nothing has been under way for too long; a stranger who has never asked anything waits shorter.
    pub(super) async fn idle(&self) {
        let mut requests = self.requests.subscribe();
        loop {
            let Count { under_way, any_ever } = *requests.borrow_and_update();
            let limit = match under_way {
                0 if any_ever => self.waits.idle,
                0 => self.waits.header,
                _ => Duration::MAX,
            };
            tokio::select! {
                _ = requests.changed() => {}
                () = tokio::time::sleep(limit) => return,
            }
        }
    }
}

impl Clone for UnderWay {
    fn clone(&self) -> Self {
        self.0.send_modify(|count| count.under_way += 1);
        Self(self.0.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| count.under_way = count.under_way.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stranger_who_asks_nothing_is_not_waited_for() {
        let begin = Instant::now();
        Activity::new(Waits::USUAL).idle().await;
        assert_eq!(begin.elapsed().as_secs(), Waits::USUAL.header.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_keeps_its_connection_and_the_last_one_leaves_it_a_while() {
        let activity = Activity::new(Waits::USUAL);
        let (one, two) = (activity.begin(), activity.begin());
        let ending = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            drop(one);
            tokio::time::sleep(Duration::from_secs(3600)).await;
            drop(two);
        };
        let begin = Instant::now();
        tokio::join!(activity.idle(), ending);
        assert_eq!(begin.elapsed().as_secs(), 7200 + Waits::USUAL.idle.as_secs());
    }
}

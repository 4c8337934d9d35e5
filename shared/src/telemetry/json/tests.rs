use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::Value;
use tracing_subscriber::{fmt, layer::SubscriberExt as _, registry};

use super::*;

/// Where a test reads what was written.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines of what `events` log: by this formatter, and by the library's own.
fn lines(events: impl Fn()) -> [Vec<Value>; 2] {
    let (ours, theirs) = (Sink::default(), Sink::default());
    let (our_writer, their_writer) = (ours.clone(), theirs.clone());
    let ours_layer = fmt::layer().json().event_format(Json::new()).with_writer(move || our_writer.clone());
    tracing::subscriber::with_default(registry().with(ours_layer), &events);
    let theirs_layer = fmt::layer().json().flatten_event(true).with_writer(move || their_writer.clone());
    tracing::subscriber::with_default(registry().with(theirs_layer), &events);
    [ours, theirs].map(|sink| {
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let values = written.lines().map(|line| serde_json::from_str(line).unwrap());
        values.map(without_time).collect()
    })
}

/// Takes the moment out, after a look at its form.
fn without_time(mut line: Value) -> Value {
    let time = line.as_object_mut().unwrap().remove("timestamp").unwrap();
    let form = time.as_str().unwrap().replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(form, "0000-00-00T00:00:00.000000Z");
    line
}

#[derive(Debug, thiserror::Error)]
#[error("the \"disk\" is full")]
struct Full;

#[test]
fn events_read_as_the_librarys_own_formatter_writes_them() {
    let [ours, theirs] = lines(|| {
        let full = Full;
        tracing::info!(
            "request-id" = "r", none = None::<&str>, some = Some("x"), negative = -1, large = u64::MAX, is = true,
            half = 0.5, shown = %"a\tb", debugged = ?"c\"d", error = &full as &dyn Error, "a message"
        );
        tracing::error!(path = "a\\b\n\u{1}\u{7f}ü");
        let span = tracing::info_span!("websocket", "request-id" = "r");
        let _entered = span.enter();
        tracing::warn!("inside");
    });
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 3);
}

proptest! {
    #[test]
    fn any_text_comes_back_as_it_was(text in any::<String>()) {
        let [ours, _] = lines(|| tracing::info!(text, "message"));
        prop_assert_eq!(ours[0]["text"].as_str(), Some(text.as_str()));
    }
}

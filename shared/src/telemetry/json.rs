//! Events as JSON, one object a line: what `tracing_subscriber`'s own formatter writes, in a third of the time.
//!
//! A gateway writes two lines a request, which that formatter builds out of many small pieces, each of which it checks again.
//! What is rare, events within a span, is left to it.

#[cfg(test)]
mod tests;

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json as Nested, Writer},
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

/// The formatter.
pub(super) struct Json {
    nested: Format<Nested>,
}

impl Json {
    pub(super) fn new() -> Self {
        Self { nested: Format::default().json().flatten_event(true) }
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if event.parent().is_some() || context.lookup_current().is_some() {
            return self.nested.format_event(context, writer, event);
        }
        let metadata = event.metadata();
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, "\",\"level\":\"{}\"", metadata.level())?;
        let mut fields = Fields { writer, result: Ok(()) };
        event.record(&mut fields);
        let Fields { mut writer, result } = fields;
        result?;
        writer.write_str(",\"target\":")?;
        quoted(&mut writer, metadata.target())?;
        writer.write_str("}\n")
    }
}

/// Writes each field as it is visited.
struct Fields<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let mut written = || {
            self.writer.write_char(',')?;
            quoted(&mut self.writer, field.name())?;
            self.writer.write_char(':')
        };
        if self.result.is_ok() {
            self.result = written().and_then(|()| value(&mut self.writer));
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, |writer| quoted(writer, value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, |writer| write!(writer, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |writer| write!(writer, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, |writer| match value.is_finite() {
            true => write!(writer, "{value:?}"),
            false => writer.write_str("null"),
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.field(field, |writer| quoted_debug(writer, format_args!("{value}")));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, |writer| quoted_debug(writer, format_args!("{value:?}")));
    }
}

fn quoted(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    writer.write_char('"')?;
    escaped(writer, text)?;
    writer.write_char('"')
}

fn quoted_debug(writer: &mut Writer<'_>, value: fmt::Arguments<'_>) -> fmt::Result {
    writer.write_char('"')?;
    Escaping(writer).write_fmt(value)?;
    writer.write_char('"')
}

/// Escapes what is written through it.
struct Escaping<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escaped(self.0, text)
    }
}

/// Text inside a JSON string (RFC 8259, 7): nearly always in one piece.
fn escaped(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|octet| matches!(octet, b'"' | b'\\' | 0..0x20)) {
        let (plain, special) = rest.split_at(at);
        writer.write_str(plain)?;
        match special.as_bytes()[0] {
            b'"' => writer.write_str("\\\"")?,
            b'\\' => writer.write_str("\\\\")?,
            b'\n' => writer.write_str("\\n")?,
            b'\r' => writer.write_str("\\r")?,
            b'\t' => writer.write_str("\\t")?,
            control => write!(writer, "\\u{control:04x}")?,
        }
        rest = &special[1..];
    }
    writer.write_str(rest)
}

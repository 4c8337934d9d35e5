//! `branding`: the operator's name, colours and logo on the gateway's own pages.

use super::{material::read_file, section::Section};
use crate::portal::{
    Look,
    look::{Color, Colors, Image},
};

const KEYS: [&str; 8] = [
    "title",
    "primary_color",
    "darkmode_primary_color",
    "secondary_color",
    "darkmode_secondary_color",
    "logo_url",
    "favicon_url",
    "error_message_first_paragraph",
];

/// Characters of a text at most.
const TEXT_LEN_MAX: usize = 1000;

/// Reads the block; what is not given stays as it is by default.
pub(super) fn look(top: &Section<'_>) -> Look {
    let default = Look::default();
    let Some(node) = top.node("branding") else { return default };
    let Some(block) = Section::of(top.reading, "branding".to_owned(), node) else { return default };
    block.allow_only(&KEYS);
    Look {
        title: text(&block, "title").unwrap_or(default.title),
        primary: colors(&block, ["primary_color", "darkmode_primary_color"], default.primary),
        secondary: colors(&block, ["secondary_color", "darkmode_secondary_color"], default.secondary),
        logo: image(&block, "logo_url"),
        favicon: image(&block, "favicon_url"),
        first_paragraph: text(&block, "error_message_first_paragraph"),
    }
}

fn text(block: &Section<'_>, name: &str) -> Option<String> {
    let text = block.filled(name)?;
    if text.chars().count() > TEXT_LEN_MAX {
        block.error(name, format!("has more than {TEXT_LEN_MAX} characters"));
    }
    Some(text.to_owned())
}

fn colors(block: &Section<'_>, [light, dark]: [&str; 2], default: Colors) -> Colors {
    let color = |name: &str| {
        let text = block.filled(name)?;
        let color = Color::parse(text);
        if color.is_none() {
            block.error(name, "expected a colour like #6f43e7");
        }
        color
    };
    let (light, dark) = (color(light), color(dark));
    // Who gives one colour means it for both.
    Colors { light: light.unwrap_or(default.light), dark: dark.or(light).unwrap_or(default.dark) }
}

/// A `data:` URL, or the name of a file.
fn image(block: &Section<'_>, name: &str) -> Option<Image> {
    let given = block.filled(name)?;
    let image = if given.contains("://") || given.starts_with("data:") {
        Image::of_data_url(given).map_err(|error| error.to_string())
    } else {
        read_file(block.reading, given)
            .and_then(|bytes| Image::of_bytes(bytes).map_err(|error| format!("{given}: {error}")))
    };
    image.map_err(|message| block.error(name, message)).ok()
}

//! How the pages look: the operator's name, colours and logo. Nothing of it comes from another host.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Bytes of an image at most.
pub const IMAGE_LEN_MAX: usize = 256 * 1024;

/// What all looks have in common.
pub const BASE: &str = include_str!("portal.css");
/// What stands for the operator where there is no logo.
const SHIELD: &str = include_str!("shield.svg");

/// What the operator gave (`branding`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// `title`: stands above each page.
    pub title: String,
    /// `primary_color`, `darkmode_primary_color`: of buttons and links.
    pub primary: Colors,
    /// `secondary_color`, `darkmode_secondary_color`: of the bar above.
    pub secondary: Colors,
    /// `logo_url`, in place of the title.
    pub logo: Option<Image>,
    /// `favicon_url`.
    pub favicon: Option<Image>,
    /// `error_message_first_paragraph`: stands on each page that refuses something.
    pub first_paragraph: Option<String>,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            title: "Pomerium".to_owned(),
            primary: Colors { light: Color(0x52, 0x34, 0xb8), dark: Color(0xb3, 0xa2, 0xf5) },
            secondary: Colors { light: Color(0xf5, 0xf3, 0xfb), dark: Color(0x1d, 0x1a, 0x2b) },
            logo: None,
            favicon: None,
            first_paragraph: None,
        }
    }
}

/// One colour for light and one for dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colors {
    /// On white.
    pub light: Color,
    /// On black.
    pub dark: Color,
}

/// Red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(pub u8, pub u8, pub u8);

impl Color {
    /// Reads `#rgb` or `#rrggbb`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        let digit = |at: usize| u8::from_str_radix(digits.get(at..=at)?, 16).ok();
        let pair = |at: usize| Some(digit(at)? * 16 + digit(at + 1)?);
        match digits.len() {
            3 => Some(Self(digit(0)? * 17, digit(1)? * 17, digit(2)? * 17)),
            6 => Some(Self(pair(0)?, pair(2)?, pair(4)?)),
            _ => None,
        }
    }

    /// Black or white, whichever is easier to read on it (WCAG 2.2, relative luminance).
    fn ink(self) -> Self {
        let linear = |channel: u8| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let luminance =
            0.0722f64.mul_add(linear(self.2), 0.2126f64.mul_add(linear(self.0), 0.7152 * linear(self.1)));
        // Where the contrast with black is that with white.
        if luminance > 0.179 { Self(0, 0, 0) } else { Self(255, 255, 255) }
    }

    fn css(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

/// A picture that the gateway serves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its media type.
    pub media_type: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why a text gives no [`Image`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// It names a host that browsers would have to ask.
    #[error(
        "the gateway's pages load nothing from other hosts: give data:image/png;base64,... or the name of a file"
    )]
    Elsewhere,
    /// Not an image that pages may show.
    #[error("expected a PNG, JPEG, GIF, WebP, ICO or SVG image")]
    Kind,
    /// It does not decode.
    #[error("expected data:image/png;base64, and the image in base64")]
    Encoding,
    /// It is too large.
    #[error("the image has more than {IMAGE_LEN_MAX} bytes")]
    TooLarge,
}

impl Image {
    /// Reads a `data:` URL (RFC 2397) in base64.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn of_data_url(url: &str) -> Result<Self, ImageError> {
        let rest = url.strip_prefix("data:").ok_or(ImageError::Elsewhere)?;
        let encoded = rest.split_once(',').ok_or(ImageError::Encoding)?.1;
        if encoded.len() / 4 * 3 > IMAGE_LEN_MAX + 3 {
            return Err(ImageError::TooLarge);
        }
        let bytes = STANDARD.decode(encoded).map_err(|_| ImageError::Encoding)?;
        Self::of_bytes(bytes)
    }

    /// Takes a file as it is; what it is, its first bytes say.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, ImageError> {
        if bytes.len() > IMAGE_LEN_MAX {
            return Err(ImageError::TooLarge);
        }
        let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
        let starts: [(&[u8], &str); 6] = [
            (b"\x89PNG\r\n\x1a\n", "image/png"),
            (b"\xff\xd8\xff", "image/jpeg"),
            (b"GIF8", "image/gif"),
            (b"\x00\x00\x01\x00", "image/x-icon"),
            (b"<svg", "image/svg+xml"),
            (b"<?xml", "image/svg+xml"),
        ];
        let media_type = starts.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, kind)| *kind);
        let media_type = media_type.or_else(|| is_webp.then_some("image/webp")).ok_or(ImageError::Kind)?;
        Ok(Self { media_type, bytes })
    }
}

impl Look {
    /// The stylesheet of all pages.
    #[must_use]
    pub fn stylesheet(&self) -> String {
        let mut sheet = BASE.to_owned();
        let light = variables(self.primary.light, self.secondary.light);
        let dark = variables(self.primary.dark, self.secondary.dark);
        let _ = write!(
            sheet,
            ":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        );
        sheet
    }

    /// The icon of the pages: the favicon, else the logo, else a shield.
    #[must_use]
    pub fn icon(&self) -> Image {
        let own = self.favicon.as_ref().or(self.logo.as_ref());
        let color = self.primary.light.css();
        own.cloned().unwrap_or_else(|| Image {
            media_type: "image/svg+xml",
            bytes: SHIELD.replace("currentColor", &color).into_bytes(),
        })
    }
}

fn variables(primary: Color, secondary: Color) -> String {
    let (primary_ink, secondary_ink) = (primary.ink().css(), secondary.ink().css());
    format!(
        "--primary: {}; --on-primary: {primary_ink}; --bar: {}; --on-bar: {secondary_ink};",
        primary.css(),
        secondary.css()
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_are_read_and_written_on_in_black_or_white() {
        assert_eq!(Color::parse("#6F43E7"), Some(Color(0x6f, 0x43, 0xe7)));
        assert_eq!(Color::parse("#fa0"), Some(Color(0xff, 0xaa, 0)));
        for bad in ["", "#", "#12", "#12345", "#1234567", "red", "#ggg", "#ää", "#+1+1+1"] {
            assert_eq!(Color::parse(bad), None, "{bad}");
        }
        assert_eq!(Color(255, 255, 0).ink(), Color(0, 0, 0));
        assert_eq!(Color(0, 0, 160).ink(), Color(255, 255, 255));
    }

    #[test]
    fn an_image_is_known_by_its_first_bytes_and_comes_from_nowhere_else() {
        let png = b"\x89PNG\r\n\x1a\nrest".to_vec();
        let image = Image::of_bytes(png).unwrap();
        let url = format!("data:image/png;base64,{}", STANDARD.encode(&image.bytes));
        assert_eq!(Image::of_data_url(&url), Ok(image));
        // What the URL says of itself does not count.
        let lie = url.replace("image/png", "text/html");
        assert_eq!(Image::of_data_url(&lie).unwrap().media_type, "image/png");
        assert_eq!(Image::of_data_url("https://cdn.example/logo.png"), Err(ImageError::Elsewhere));
        assert_eq!(Image::of_data_url("data:image/png,abc"), Err(ImageError::Encoding));
        assert_eq!(Image::of_bytes(b"<html>".to_vec()), Err(ImageError::Kind));
        assert_eq!(Image::of_bytes(vec![0; IMAGE_LEN_MAX + 1]), Err(ImageError::TooLarge));
    }

    #[test]
    fn the_stylesheet_has_the_operators_colours() {
        let red = Color(0xaa, 0, 0x11);
        let look = Look { primary: Colors { light: red, dark: red }, ..Look::default() };
        assert!(look.stylesheet().contains("--primary: #aa0011; --on-primary: #ffffff"));
        assert!(String::from_utf8(look.icon().bytes).unwrap().contains("#aa0011"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_readers(text in "\\PC{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Color::parse(&text);
            let _ = Image::of_data_url(&text);
            let _ = Image::of_bytes(bytes);
        }
    }
}

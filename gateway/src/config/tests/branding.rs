use super::*;
use crate::portal::{Look, look::Color};

#[test]
fn the_operators_look_is_read_and_one_colour_is_meant_for_both() {
    let given =
        "branding: {title: Corp, primary_color: '#0b6e4f', logo_url: 'data:image/svg+xml;base64,PHN2Zz4='}\n";
    let look = good(given).settings.look;
    assert_eq!(look.title, "Corp");
    assert_eq!((look.primary.light, look.primary.dark), (Color(0x0b, 0x6e, 0x4f), Color(0x0b, 0x6e, 0x4f)));
    assert_eq!(look.secondary, Look::default().secondary);
    assert_eq!(look.logo.map(|logo| logo.bytes), Some(b"<svg>".to_vec()));
    assert_eq!(good("").settings.look, Look::default());
}

#[test]
fn what_pages_cannot_show_is_said() {
    for (rest, message) in [
        ("branding: {primary_color: red}\n", "branding.primary_color"),
        ("branding: {logo_url: 'https://cdn.example/logo.png'}\n", "load nothing from other hosts"),
        ("branding: {favicon_url: cert.pem}\n", "cert.pem: expected a PNG"),
        ("branding: {logo_url: nowhere.png}\n", "cannot read"),
        ("branding: {colour: '#fff'}\n", "branding.colour"),
        ("branding: blue\n", "branding"),
    ] {
        assert!(errors(rest).contains(message), "{rest}: {}", errors(rest));
    }
}

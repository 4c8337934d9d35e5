//! The icon, drawn: a disc with a keyhole. What it says shows in its form as well as in its colour. Pure.

use super::state::Light;

/// Octets of a pixel: alpha, red, green, blue.
const PIXEL_LEN: usize = 4;

/// The icon at a size, as ARGB rows.
pub(super) fn argb(light: Light, size: u16) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(usize::from(size) * usize::from(size) * PIXEL_LEN);
    for y in 0..size {
        for x in 0..size {
            // The middle of the pixel, from -1 to 1.
            let at = |place: u16| (f32::from(place) + 0.5) / f32::from(size) * 2.0 - 1.0;
            pixels.extend(pixel(light, at(x), at(y)));
        }
    }
    pixels
}

fn pixel(light: Light, x: f32, y: f32) -> [u8; PIXEL_LEN] {
    const CLEAR: [u8; PIXEL_LEN] = [0; PIXEL_LEN];
    const WHITE: [u8; PIXEL_LEN] = [255; PIXEL_LEN];
    let [red, green, blue] = colour(light);
    let ink = [255, red, green, blue];
    let far = x.hypot(y);
    if far > 0.92 {
        return CLEAR;
    }
    let is_rim = far > 0.74;
    // A keyhole: a round hole and a slot below it. An exclamation mark: a bar and a dot.
    let is_keyhole = x.hypot(y + 0.2) < 0.26 || (x.abs() < 0.12 && (-0.2..0.5).contains(&y));
    let is_mark = x.abs() < 0.13 && ((-0.55..0.15).contains(&y) || (0.3..0.55).contains(&y));
    match light {
        Light::Off if is_rim => ink,
        Light::Off => CLEAR,
        Light::SignedOut if is_rim || is_keyhole => ink,
        Light::SignedOut => CLEAR,
        Light::Trouble if is_mark => WHITE,
        Light::Good if is_keyhole => WHITE,
        Light::Trouble | Light::Good => ink,
    }
}

/// Each is told from dark and from bright panels.
const fn colour(light: Light) -> [u8; 3] {
    match light {
        Light::Off | Light::SignedOut => [0x8a, 0x8f, 0x98],
        Light::Trouble => [0xd9, 0x7b, 0x0b],
        Light::Good => [0x2f, 0x9d, 0x66],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_light_has_a_form_of_its_own() {
        let lights = [Light::Off, Light::SignedOut, Light::Trouble, Light::Good];
        let form = |light| -> Vec<bool> {
            let [red, green, blue] = colour(light);
            argb(light, 22).chunks(PIXEL_LEN).map(|pixel| pixel == [255, red, green, blue]).collect()
        };
        for (index, light) in lights.into_iter().enumerate() {
            assert_eq!(argb(light, 22).len(), 22 * 22 * PIXEL_LEN);
            for other in &lights[..index] {
                assert_ne!(form(light), form(*other), "{light:?} {other:?}");
            }
        }
    }
}

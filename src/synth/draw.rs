//! Drawing tools: colours, a canvas of 200 by 200 points at any pixel size, and numeric functions.
//!
//! Shapes are anti-aliased by `tiny-skia`. A degenerate shape (an ellipse without width) is not
//! drawn.

use rand::Rng;
use tiny_skia::{
    BlendMode, Color, FillRule, GradientStop, LineCap, LinearGradient, Mask, Paint, Path,
    PathBuilder, Pixmap, Point, RadialGradient, Rect, Shader, SpreadMode, Stroke, Transform,
};

/// Side of the canvas in points, at any size in pixels.
pub(super) const SIDE: f32 = 200.0;

/// An sRGB colour, each channel 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Colour {
    red: f32,
    green: f32,
    blue: f32,
}

impl Colour {
    pub(super) const fn rgb(red: f32, green: f32, blue: f32) -> Self {
        Self { red, green, blue }
    }

    /// This colour at `share` 0, `other` at 1.
    pub(super) fn mix(self, other: Self, share: f32) -> Self {
        Self {
            red: lerp(self.red, other.red, share),
            green: lerp(self.green, other.green, share),
            blue: lerp(self.blue, other.blue, share),
        }
    }

    /// Every channel times `factor`.
    pub(super) fn scale(self, factor: f32) -> Self {
        Self::rgb(self.red * factor, self.green * factor, self.blue * factor)
    }

    /// This colour in shadow: darker and warmer.
    pub(super) fn shadow(self) -> Self {
        Self::rgb(self.red * 0.62, self.green * 0.48, self.blue * 0.44)
    }

    /// This colour in light.
    pub(super) fn light(self) -> Self {
        self.mix(Self::rgb(1.0, 0.97, 0.92), 0.55)
    }

    /// This colour of hair after `share` of its pigment has gone.
    pub(super) fn greyed(self, share: f32) -> Self {
        let iron = self.mix(Self::rgb(0.62, 0.61, 0.61), (share * 1.3).min(1.0));
        iron.mix(Self::rgb(0.92, 0.92, 0.91), ramp(share, 0.45, 1.0))
    }

    fn opaque_by(self, opacity: f32) -> Color {
        let unit = |channel: f32| channel.clamp(0.0, 1.0);
        Color::from_rgba(
            unit(self.red),
            unit(self.green),
            unit(self.blue),
            unit(opacity),
        )
        .unwrap_or(Color::TRANSPARENT)
    }
}

/// A point on the canvas.
pub(super) type Spot = (f32, f32);

pub(super) struct Canvas {
    pixmap: Pixmap,
    /// Points to pixels, with the pose of the person.
    transform: Transform,
    /// Shapes are only visible inside it.
    clip: Option<Mask>,
}

impl Canvas {
    /// Returns an empty canvas of `size` by `size` pixels; `None` for a size of zero or one beyond
    /// the address space.
    pub(super) fn new(size: u32) -> Option<Self> {
        let scale = size as f32 / SIDE;
        Some(Self {
            pixmap: Pixmap::new(size, size)?,
            transform: Transform::from_scale(scale, scale),
            clip: None,
        })
    }

    /// Rotates later shapes by `degrees` about the middle, scales them, and moves them by `shift`
    /// points.
    pub(super) fn pose(&mut self, degrees: f32, scale: f32, shift: Spot) {
        let middle = SIDE / 2.0;
        self.transform = self
            .transform
            .pre_translate(shift.0, shift.1)
            .pre_concat(Transform::from_rotate_at(degrees, middle, middle))
            .pre_translate(middle, middle)
            .pre_scale(scale, scale)
            .pre_translate(-middle, -middle);
    }

    /// Clips later shapes to `path`.
    pub(super) fn clip_to(&mut self, path: &Path) {
        let mask = Mask::new(self.pixmap.width(), self.pixmap.height()).map(|mut mask| {
            mask.fill_path(path, FillRule::Winding, true, self.transform);
            mask
        });
        self.clip = mask;
    }

    pub(super) fn unclip(&mut self) {
        self.clip = None;
    }

    pub(super) fn fill(&mut self, path: &Path, colour: Colour, opacity: f32) {
        self.fill_shader(path, Shader::SolidColor(colour.opaque_by(opacity)));
    }

    /// Fills `path` with a gradient from one point and colour to another.
    pub(super) fn fill_between(&mut self, path: &Path, from: (Spot, Colour), to: (Spot, Colour)) {
        let stops = vec![
            GradientStop::new(0.0, from.1.opaque_by(1.0)),
            GradientStop::new(1.0, to.1.opaque_by(1.0)),
        ];
        let (start, end) = (point(from.0), point(to.0));
        if let Some(shader) =
            LinearGradient::new(start, end, stops, SpreadMode::Pad, Transform::identity())
        {
            self.fill_shader(path, shader);
        }
    }

    pub(super) fn stroke(&mut self, path: &Path, width: f32, colour: Colour, opacity: f32) {
        let stroke = Stroke {
            width,
            line_cap: LineCap::Round,
            ..Stroke::default()
        };
        let paint = paint(Shader::SolidColor(colour.opaque_by(opacity)));
        self.pixmap
            .stroke_path(path, &paint, &stroke, self.transform, self.clip.as_ref());
    }

    pub(super) fn ellipse(&mut self, centre: Spot, radii: Spot, colour: Colour, opacity: f32) {
        if let Some(path) = ellipse(centre, radii) {
            self.fill(&path, colour, opacity);
        }
    }

    /// Draws a blurred ellipse: `opacity` in the middle, transparent at the rim.
    pub(super) fn glow(&mut self, centre: Spot, radii: Spot, colour: Colour, opacity: f32) {
        let Some(path) = ellipse(centre, radii) else {
            return;
        };
        let stops = vec![
            GradientStop::new(0.0, colour.opaque_by(opacity)),
            GradientStop::new(0.5, colour.opaque_by(opacity * 0.5)),
            GradientStop::new(1.0, colour.opaque_by(0.0)),
        ];
        let shape = Transform::from_row(radii.0, 0.0, 0.0, radii.1, centre.0, centre.1);
        let origin = Point::from_xy(0.0, 0.0);
        if let Some(shader) =
            RadialGradient::new(origin, 0.0, origin, 1.0, stops, SpreadMode::Pad, shape)
        {
            self.fill_shader(&path, shader);
        }
    }

    /// Draws a fold of the skin from `from` to `to`, bent towards `bend`: a dark sliver with a
    /// lighter edge below it.
    pub(super) fn crease(
        &mut self,
        [from, bend, to]: [Spot; 3],
        width: f32,
        skin: Colour,
        strength: f32,
    ) {
        let sliver = |offset: f32, thickness: f32| {
            let mut builder = PathBuilder::new();
            builder.move_to(from.0, from.1 + offset);
            builder.quad_to(bend.0, bend.1 + offset - thickness, to.0, to.1 + offset);
            builder.quad_to(bend.0, bend.1 + offset + thickness, from.0, from.1 + offset);
            builder.close();
            builder.finish()
        };
        if let Some(path) = sliver(width * 0.9, width) {
            self.fill(&path, skin.light(), strength * 0.45);
        }
        if let Some(path) = sliver(0.0, width) {
            self.fill(&path, skin.shadow().scale(0.85), strength);
        }
    }

    /// Returns the pixels as RGB bytes, row by row. Pixels without a shape are black.
    pub(super) fn into_rgb(self) -> Vec<u8> {
        self.pixmap
            .pixels()
            .iter()
            .flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()])
            .collect()
    }

    fn fill_shader(&mut self, path: &Path, shader: Shader<'_>) {
        self.pixmap.fill_path(
            path,
            &paint(shader),
            FillRule::Winding,
            self.transform,
            self.clip.as_ref(),
        );
    }
}

fn paint(shader: Shader<'_>) -> Paint<'_> {
    Paint {
        shader,
        blend_mode: BlendMode::SourceOver,
        anti_alias: true,
        ..Paint::default()
    }
}

fn point((x, y): Spot) -> Point {
    Point::from_xy(x, y)
}

/// Returns an ellipse; `None` if a radius is not positive.
pub(super) fn ellipse(centre: Spot, radii: Spot) -> Option<Path> {
    let bounds = Rect::from_ltrb(
        centre.0 - radii.0,
        centre.1 - radii.1,
        centre.0 + radii.0,
        centre.1 + radii.1,
    )?;
    PathBuilder::from_oval(bounds)
}

/// Returns a rectangle that extends beyond every edge of the canvas in any pose.
pub(super) fn everything() -> Option<Path> {
    Rect::from_ltrb(-SIDE, -SIDE, 2.0 * SIDE, 2.0 * SIDE).map(PathBuilder::from_rect)
}

/// Returns a smooth closed outline, mirrored about the vertical through `middle`.
///
/// `start` lies on that vertical; each triple is a cubic curve (two control points and an end) of
/// the right half, as distances from the vertical and heights. The last curve ends on the vertical.
pub(super) fn mirrored(middle: f32, start: f32, curves: &[[Spot; 3]]) -> Option<Path> {
    let mut builder = PathBuilder::new();
    builder.move_to(middle, start);
    for [first, second, end] in curves {
        builder.cubic_to(
            middle + first.0,
            first.1,
            middle + second.0,
            second.1,
            middle + end.0,
            end.1,
        );
    }
    for (index, [first, second, _]) in curves.iter().enumerate().rev() {
        let end = match index {
            0 => (0.0, start),
            _ => curves[index - 1][2],
        };
        builder.cubic_to(
            middle - second.0,
            second.1,
            middle - first.0,
            first.1,
            middle - end.0,
            end.1,
        );
    }
    builder.close();
    builder.finish()
}

/// Returns a bent line.
pub(super) fn arc([from, bend, to]: [Spot; 3]) -> Option<Path> {
    let mut builder = PathBuilder::new();
    builder.move_to(from.0, from.1);
    builder.quad_to(bend.0, bend.1, to.0, to.1);
    builder.finish()
}

/// Returns a closed shape of two bent lines, from `from` to `to` via `above` and back via `below`.
pub(super) fn leaf(from: Spot, above: Spot, to: Spot, below: Spot) -> Option<Path> {
    let mut builder = PathBuilder::new();
    builder.move_to(from.0, from.1);
    builder.quad_to(above.0, above.1, to.0, to.1);
    builder.quad_to(below.0, below.1, from.0, from.1);
    builder.close();
    builder.finish()
}

/// `from` at `share` 0, `to` at 1.
pub(super) fn lerp(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

/// 0 up to `from`, 1 beyond `to`, linear between.
pub(super) fn ramp(value: f32, from: f32, to: f32) -> f32 {
    ((value - from) / (to - from)).clamp(0.0, 1.0)
}

/// Returns a standard normal number as the sum of twelve uniform ones, which needs no function that
/// platforms round differently.
pub(super) fn normal(rng: &mut impl Rng) -> f32 {
    (0..12).map(|_| rng.random_range(0.0..1.0_f32)).sum::<f32>() - 6.0
}

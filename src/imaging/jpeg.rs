//! JPEG decoding by libjpeg-turbo, in the form that mozjpeg ships.
//!
//! Pillow and torchvision decode with the same library, so the pixels are equal to theirs bit for bit. The library reports
//! damage as numbered warnings and errors. Warnings that mean missing or damaged image data are errors here: the library
//! fills what is missing with grey, and half a face would be learned from, or given an age, as if nothing were wrong.
//! Superfluous bytes between or after segments change no pixel and are accepted.
//!
//! The library aborts through [`error_exit`], which unwinds through its C frames; [`catch`] turns that into a [`Failure`].

use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{addr_of, addr_of_mut, null_mut};

use image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg_sys as ffi;

use super::{Error, Limits, jpeg_markers};

/// Scans that a JPEG of the largest allowed size may have: encoders write a dozen. A smaller one may have more in
/// proportion. Each scan of a progressive JPEG visits every pixel, and hundreds fit into a file of 100 kB.
const SCANS: u64 = 16;

const EXIF_MARKER: c_int = 0xE1;
/// Most components of a JPEG that is decoded: CMYK.
const MAX_COMPONENTS: usize = 4;
/// Start of a JPEG-LS frame (ITU-T T.87), which the library does not know.
const JPEG_LS_MARKER: c_int = 0xF7;
const EXIF_PREFIX: &[u8] = b"Exif\0\0";

/// A JPEG whose header has been read and whose dimensions are within the limits.
pub(super) struct Decoder<'a> {
    /// From `Box::into_raw`: the library and its callbacks hold pointers into it.
    state: *mut State,
    bytes: PhantomData<&'a [u8]>,
}

struct State {
    library: ffi::jpeg_decompress_struct,
    errors: ffi::jpeg_error_mgr,
    scans: Scans,
}

/// The scans so far, from the messages that the library emits for the frame and for each scan.
struct Scans {
    begun: u64,
    allowed: u64,
    /// Components of the scan whose header is being read.
    current: Vec<c_int>,
    /// Components of the image whose constant coefficients have not come: without them a component is a grey plane.
    missing: Vec<c_int>,
}

/// Why a JPEG cannot be decoded.
#[derive(Debug)]
enum Failure {
    /// A kind of JPEG that is not supported.
    Unsupported(String),
    /// The content is damaged.
    Corrupt(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsupported(found) => Error::UnsupportedFormat { found },
            Failure::Corrupt(reason) => Error::Corrupt {
                format: "JPEG",
                reason,
            },
        }
    }
}

impl<'a> Decoder<'a> {
    /// Reads the header, up to the image data of the first scan.
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    pub(super) fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, Error> {
        // SAFETY: all three are C structures without a niche; the library fills them below before it reads them.
        let state: Box<State> = Box::new(State {
            library: unsafe { std::mem::zeroed() },
            errors: unsafe { std::mem::zeroed() },
            scans: Scans {
                begun: 0,
                allowed: u64::MAX,
                current: Vec::new(),
                missing: Vec::new(),
            },
        });
        let decoder = Decoder {
            state: Box::into_raw(state),
            bytes: PhantomData,
        };
        let state = decoder.state;
        // SAFETY: `state` points to a live State that only this thread uses; `bytes` outlives the decoder.
        catch(|| unsafe {
            ffi::jpeg_std_error(&mut (*state).errors);
            (*state).errors.error_exit = Some(error_exit);
            (*state).errors.emit_message = Some(emit_message);
            (*state).library.common.err = addr_of_mut!((*state).errors);
            (*state).library.common.client_data = state.cast::<c_void>();
            ffi::jpeg_create_decompress(addr_of_mut!((*state).library));
            // The library's own arrays; rows and tables are small beside them.
            (*(*state).library.common.mem).max_memory_to_use =
                c_long::try_from(limits.decoder_memory()).unwrap_or(c_long::MAX);
            ffi::jpeg_save_markers(&mut (*state).library, EXIF_MARKER, 0xFFFF);
            ffi::jpeg_mem_src(
                &mut (*state).library,
                bytes.as_ptr(),
                bytes.len() as c_ulong,
            );
            ffi::jpeg_read_header(&mut (*state).library, 1);
        })?;
        let (width, height) = decoder.dimensions();
        limits.check_dimensions(width, height)?;
        let components = decoder.library().num_components;
        if !matches!(components, 1 | 3 | 4) {
            let found =
                format!("a JPEG image with {components} components, which is not supported");
            return Err(Error::UnsupportedFormat { found });
        }
        let pixels = u64::from(width) * u64::from(height);
        let allowed = (SCANS * limits.max_pixels / pixels).max(1);
        if jpeg_markers::scans(bytes) > allowed {
            Err(too_many_scans(allowed))?;
        }
        // SAFETY: as above; the library runs only inside of calls.
        unsafe {
            (*state).scans.allowed = allowed;
        }
        Ok(decoder)
    }

    /// Stored width and height in pixels.
    pub(super) fn dimensions(&self) -> (u32, u32) {
        (self.library().image_width, self.library().image_height)
    }

    /// The first EXIF segment, from its TIFF header on.
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    pub(super) fn exif(&self) -> Option<&[u8]> {
        let mut next = self.library().marker_list;
        while !next.is_null() {
            // SAFETY: the list is made by jpeg_read_header and lives as long as the decoder.
            let marker = unsafe { &*next };
            if !marker.data.is_null() {
                // SAFETY: as above; the library stores `data_length` bytes there.
                let data =
                    unsafe { std::slice::from_raw_parts(marker.data, marker.data_length as usize) };
                if let Some(exif) = data.strip_prefix(EXIF_PREFIX) {
                    return Some(exif);
                }
            }
            next = marker.next;
        }
        None
    }

    /// Decodes to 8-bit grey or RGB, not yet turned upright.
    pub(super) fn decode(mut self) -> Result<DynamicImage, Error> {
        let (width, height) = self.dimensions();
        let count = self.library().num_components;
        let colours = match count {
            1 => ffi::J_COLOR_SPACE::JCS_GRAYSCALE,
            3 => ffi::J_COLOR_SPACE::JCS_RGB,
            _ => ffi::J_COLOR_SPACE::JCS_CMYK,
        };
        let row_bytes = width as usize * count as usize;
        let samples = self.samples(colours, row_bytes, height as usize)?;
        let image = match count {
            1 => GrayImage::from_raw(width, height, samples).map(DynamicImage::from),
            3 => RgbImage::from_raw(width, height, samples).map(DynamicImage::from),
            _ => {
                let inks = samples.as_chunks::<4>().0.iter();
                let samples = inks.flat_map(|inks| rgb_of_inverted_cmyk(*inks)).collect();
                RgbImage::from_raw(width, height, samples).map(DynamicImage::from)
            }
        };
        Ok(image.expect("the library wrote as many samples as the header announces"))
    }

    /// Reads all image data without keeping pixels, so that damage anywhere in the file is found.
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    pub(super) fn verify(mut self) -> Result<(), Error> {
        let state = self.state;
        // SAFETY: `state` is live and used by this thread only. At an eighth of the size and in the colours that are
        // stored, the entropy-coded data is read whole and next to nothing is computed from it.
        let colours = unsafe {
            (*state).library.scale_num = 1;
            (*state).library.scale_denom = 8;
            (*state).library.jpeg_color_space
        };
        let row = self.library().image_width.div_ceil(8) as usize * MAX_COMPONENTS;
        self.read(colours, &mut vec![MaybeUninit::uninit(); row], 0)?;
        Ok(())
    }

    /// The samples of an image of `height` rows.
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    fn samples(
        &mut self,
        colours: ffi::J_COLOR_SPACE,
        row_bytes: usize,
        height: usize,
    ) -> Result<Vec<u8>, Failure> {
        let bytes = row_bytes * height;
        // Not filled with zeros first, which would take a twentieth of the time.
        let mut samples = Vec::with_capacity(bytes);
        let rows = self.read(
            colours,
            &mut samples.spare_capacity_mut()[..bytes],
            row_bytes,
        )?;
        assert_eq!(
            rows,
            (row_bytes, height),
            "the library decodes at full size"
        );
        // SAFETY: the capacity is there, and the library wrote each byte of each row.
        unsafe { samples.set_len(bytes) };
        Ok(samples)
    }

    /// Decompresses the image into `output`, each row `stride` bytes behind the one before; returns the bytes of a row and
    /// the rows.
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    fn read(
        &mut self,
        colours: ffi::J_COLOR_SPACE,
        output: &mut [MaybeUninit<u8>],
        stride: usize,
    ) -> Result<(usize, usize), Failure> {
        let state = self.state;
        // SAFETY: `state` is live and used by this thread only; a row is written only where all of it lies in `output`.
        let rows = catch(|| unsafe {
            let library = addr_of_mut!((*state).library);
            (*library).out_color_space = colours;
            ffi::jpeg_start_decompress(&mut *library);
            let row_bytes =
                (*library).output_width as usize * (*library).output_components as usize;
            while (*library).output_scanline < (*library).output_height {
                let start = stride * (*library).output_scanline as usize;
                let mut row = output[start..start + row_bytes].as_mut_ptr().cast::<u8>();
                ffi::jpeg_read_scanlines(&mut *library, &mut row, 1);
            }
            ffi::jpeg_finish_decompress(&mut *library);
            (row_bytes, (*library).output_height as usize)
        })?;
        // SAFETY: `state` is live, and the library does not run.
        match unsafe { (*state).scans.missing.first() } {
            // The library shows such a component as grey, without a warning.
            Some(component) => Err(Failure::Corrupt(format!(
                "the file ends before the image does: it has no data for component {component}"
            ))),
            None => Ok(rows),
        }
    }

    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    fn library(&self) -> &ffi::jpeg_decompress_struct {
        // SAFETY: `state` is live until the decoder is dropped, and the library does not run.
        unsafe { &*addr_of!((*self.state).library) }
    }
}

impl Drop for Decoder<'_> {
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    fn drop(&mut self) {
        // SAFETY: made by Box::into_raw in `open` and freed here only. The library accepts a structure that it never
        // finished creating, since its memory manager is then null.
        unsafe {
            ffi::jpeg_destroy_decompress(&mut (*self.state).library);
            drop(Box::from_raw(self.state));
        }
        self.state = null_mut();
    }
}

/// The colour of four inks that are stored inverted, as Adobe's programs do and as Pillow assumes for every CMYK JPEG:
/// each of red, green and blue is (255 - ink) · (255 - black) / 255, rounded.
fn rgb_of_inverted_cmyk([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let light = u32::from(black);
    [cyan, magenta, yellow].map(|inverted| {
        let ink = 255 - u32::from(inverted);
        // Pillow rounds the part that is absorbed.
        let absorbed = (ink * light + 127) / 255;
        (light - absorbed) as u8
    })
}

/// Runs calls of the library and returns the failure that one of its callbacks unwound with.
fn catch<T>(calls: impl FnOnce() -> T) -> Result<T, Failure> {
    // After a failure the decoder is only dropped, which the library allows in every state.
    catch_unwind(AssertUnwindSafe(calls)).map_err(|payload| match payload.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(payload) => resume_unwind(payload),
    })
}

fn too_many_scans(allowed: u64) -> Failure {
    Failure::Corrupt(format!(
        "it has more than the {allowed} scans that are allowed for its size"
    ))
}

fn fail(failure: Failure) -> ! {
    // Does not run the panic hook: a damaged image is not a defect of the program.
    resume_unwind(Box::new(failure))
}

/// Called by the library where it cannot continue.
#[expect(unsafe_code, reason = "libjpeg is a C library")]
extern "C-unwind" fn error_exit(common: &mut ffi::jpeg_common_struct) {
    // SAFETY: `err` was set in `open`, and the library stores the number of the error and its parameters there.
    let (code, parameters) = unsafe { ((*common.err).msg_code, message_parameters(common)) };
    let not_supported =
        |kind: &str| Failure::Unsupported(format!("a JPEG image {kind}, which is not supported"));
    fail(match code {
        ffi::JERR_ARITH_NOTIMPL => not_supported("with arithmetic coding"),
        ffi::JERR_BAD_PRECISION => {
            not_supported(&format!("with {} bits per sample", parameters[0]))
        }
        ffi::JERR_SOF_UNSUPPORTED => not_supported(kind_of_frame(parameters[0])),
        ffi::JERR_UNKNOWN_MARKER if parameters[0] == JPEG_LS_MARKER => {
            not_supported("with JPEG-LS coding")
        }
        ffi::JERR_CONVERSION_NOTIMPL | ffi::JERR_BAD_J_COLORSPACE => {
            not_supported("in an unknown colour space")
        }
        ffi::JERR_NO_BACKING_STORE | ffi::JERR_OUT_OF_MEMORY => {
            Failure::Corrupt("it needs more memory than its size allows".to_owned())
        }
        _ => Failure::Corrupt(message(common)),
    });
}

/// The kind of frame that a start-of-frame marker announces (ITU-T T.81, table B.1).
fn kind_of_frame(marker: c_int) -> &'static str {
    match marker {
        0xC3 => "with lossless coding",
        0xC5..=0xC7 => "with hierarchical coding",
        0xC9 | 0xCA => "with arithmetic coding",
        0xCB => "with lossless arithmetic coding",
        0xCD..=0xCF => "with hierarchical arithmetic coding",
        _ => "of an unknown kind",
    }
}

/// Called by the library for each warning, and for each segment that it reads.
#[expect(unsafe_code, reason = "libjpeg is a C library")]
extern "C-unwind" fn emit_message(common: &mut ffi::jpeg_common_struct, _level: c_int) {
    // SAFETY: as in `error_exit`.
    let code = unsafe { (*common.err).msg_code };
    match code {
        ffi::JWRN_HIT_MARKER | ffi::JWRN_JPEG_EOF => fail(Failure::Corrupt(
            "the file ends before the image does".to_owned(),
        )),
        ffi::JWRN_HUFF_BAD_CODE | ffi::JWRN_MUST_RESYNC => fail(Failure::Corrupt(message(common))),
        ffi::JTRC_SOF_COMPONENT
        | ffi::JTRC_SOS
        | ffi::JTRC_SOS_COMPONENT
        | ffi::JTRC_SOS_PARAMS => {
            // SAFETY: as in `error_exit`; `client_data` is the State, whose `scans` the library does not touch.
            let (scans, parameters) = unsafe {
                let state = common.client_data.cast::<State>();
                (&mut (*state).scans, message_parameters(common))
            };
            scans.message(code, parameters);
        }
        // Superfluous bytes, unknown versions of markers, unusual orders of scans: no pixel is missing.
        _ => {}
    }
}

impl Scans {
    /// Follows the messages about the frame's components and about the header of a scan: its start, its components, its
    /// coefficients.
    fn message(&mut self, code: c_int, parameters: [c_int; 8]) {
        match code {
            ffi::JTRC_SOS => {
                self.begun += 1;
                self.current.clear();
                if self.begun > self.allowed {
                    fail(too_many_scans(self.allowed));
                }
            }
            ffi::JTRC_SOS_COMPONENT => self.current.push(parameters[0]),
            ffi::JTRC_SOF_COMPONENT => self.missing.push(parameters[0]),
            _ => {
                let (first_coefficient, refines) = (parameters[0], parameters[2] != 0);
                if first_coefficient == 0 && !refines {
                    let sent = &self.current;
                    self.missing.retain(|component| !sent.contains(component));
                }
            }
        }
    }
}

/// # Safety
/// `common.err` must point to the error manager of a library that has just reported a message with numbers.
#[expect(unsafe_code, reason = "libjpeg is a C library")]
unsafe fn message_parameters(common: &mut ffi::jpeg_common_struct) -> [c_int; 8] {
    unsafe { *(*common.err).msg_parm.i() }
}

/// The library's own sentence for what it has just reported.
#[expect(unsafe_code, reason = "libjpeg is a C library")]
fn message(common: &mut ffi::jpeg_common_struct) -> String {
    type Format = unsafe extern "C-unwind" fn(&mut ffi::jpeg_common_struct, *mut u8);
    let mut text = [0_u8; 80];
    // SAFETY: `err` was set in `open`. The C function writes up to 80 bytes through its second argument; the binding
    // declares that as a shared reference, under which writing would be undefined, so the type is corrected first.
    unsafe {
        if let Some(format) = (*common.err).format_message {
            let format: Format = std::mem::transmute(format);
            format(common, text.as_mut_ptr());
        }
    }
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

//! Messages of the library: errors, warnings, and the segments that it reads.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg_sys as ffi;

use super::super::Error;

/// Start of a JPEG-LS frame (ITU-T T.87), which the library does not support.
const JPEG_LS_MARKER: c_int = 0xF7;

/// Scans so far, from the messages that the library emits for the frame and for each scan.
#[derive(Default)]
pub(super) struct Scans {
    begun: u64,
    /// Unlimited while the size of the image is unknown, during its first scan.
    pub(super) allowed: Option<u64>,
    /// Components of the scan whose header is being read.
    current: Vec<c_int>,
    /// Components whose constant coefficients are missing so far; without them a component is a
    /// grey plane.
    missing: Vec<c_int>,
}

#[derive(Debug)]
pub(super) enum Failure {
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

/// Runs calls of the library and returns the failure that one of its callbacks unwound with.
pub(super) fn catch<T>(calls: impl FnOnce() -> T) -> Result<T, Failure> {
    // After a failure the decoder is only dropped, which the library allows in every state.
    catch_unwind(AssertUnwindSafe(calls)).map_err(|payload| match payload.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(payload) => resume_unwind(payload),
    })
}

pub(super) fn too_many_scans(allowed: u64) -> Failure {
    Failure::Corrupt(format!(
        "it has more than the {allowed} scans that are allowed for its size"
    ))
}

fn fail(failure: Failure) -> ! {
    // Does not run the panic hook: a damaged image is not a defect of the program.
    resume_unwind(Box::new(failure))
}

/// Callback of the library for fatal errors.
#[expect(unsafe_code, reason = "libjpeg is a C library")]
pub(super) extern "C-unwind" fn error_exit(common: &mut ffi::jpeg_common_struct) {
    // SAFETY: the decoder sets `err`, and the library stores the number of the error and its
    // parameters there.
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

/// Returns the kind of frame of a start-of-frame marker (ITU-T T.81, table B.1).
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

/// Callback of the library for each warning and each segment.
#[expect(unsafe_code, reason = "libjpeg is a C library")]
pub(super) extern "C-unwind" fn emit_message(common: &mut ffi::jpeg_common_struct, _level: c_int) {
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
            // SAFETY: as in `error_exit`; `client_data` is the Scans, which the library does not
            // touch.
            let (scans, parameters) = unsafe {
                let scans = common.client_data.cast::<Scans>();
                (&mut *scans, message_parameters(common))
            };
            scans.message(code, parameters);
        }
        // Superfluous bytes, unknown versions of markers, unusual orders of scans: no pixel is
        // missing.
        _ => {}
    }
}

impl Scans {
    /// Returns the first component without constant coefficients.
    pub(super) fn missing_component(&self) -> Option<c_int> {
        self.missing.first().copied()
    }

    /// Follows the messages about the frame's components and about the header of a scan: its start,
    /// its components, its coefficients.
    fn message(&mut self, code: c_int, parameters: [c_int; 8]) {
        match code {
            ffi::JTRC_SOS => {
                self.begun += 1;
                self.current.clear();
                if let Some(allowed) = self.allowed
                    && self.begun > allowed
                {
                    fail(too_many_scans(allowed));
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
/// `common.err` must point to the error manager of a library that has just reported a message with
/// numbers.
#[expect(unsafe_code, reason = "libjpeg is a C library")]
unsafe fn message_parameters(common: &mut ffi::jpeg_common_struct) -> [c_int; 8] {
    unsafe { *(*common.err).msg_parm.i() }
}

/// Returns the library's text of the latest message.
#[expect(unsafe_code, reason = "libjpeg is a C library")]
fn message(common: &mut ffi::jpeg_common_struct) -> String {
    type Format = unsafe extern "C-unwind" fn(&mut ffi::jpeg_common_struct, *mut u8);
    let mut text = [0_u8; 80];
    // SAFETY: the decoder sets `err`. The C function writes up to 80 bytes through its second
    // argument; the binding declares that as a shared reference, under which writing would be
    // undefined, so the type is corrected first.
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

/**
 * Camera dialog, for secure pages (https or localhost); other pages use the camera app of a phone.
 */
import { useEffect, useRef, useState } from "preact/hooks";
import { Dialog } from "../ui/dialog";

export function hasCamera(): boolean {
  return isSecureContext && "mediaDevices" in navigator;
}

export function CameraDialog(props: { onClose: () => void; onImage: (file: File) => void }) {
  const video = useRef<HTMLVideoElement>(null);
  const [problem, setProblem] = useState("");
  const [isReady, setReady] = useState(false);
  useEffect(() => {
    let stream: MediaStream | undefined;
    let isGone = false;
    navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } }).then(
      (opened) => {
        stream = opened;
        if (isGone) stream.getTracks().forEach((track) => track.stop());
        else if (video.current) video.current.srcObject = opened;
      },
      (error: Error) => setProblem(error.name === "NotAllowedError" ? "Access to the camera was denied." : `The camera is unavailable: ${error.message}`),
    );
    return () => {
      isGone = true;
      stream?.getTracks().forEach((track) => track.stop());
    };
  }, []);
  const take = (): void => {
    const element = video.current;
    if (!element) return;
    const canvas = document.createElement("canvas");
    canvas.width = element.videoWidth;
    canvas.height = element.videoHeight;
    canvas.getContext("2d")?.drawImage(element, 0, 0);
    canvas.toBlob(
      (blob) => {
        if (blob) props.onImage(new File([blob], `camera ${new Date().toLocaleTimeString("en-GB")}.jpg`, { type: "image/jpeg" }));
        props.onClose();
      },
      "image/jpeg",
      0.92,
    );
  };
  return (
    <Dialog title="Take an image" onClose={props.onClose}>
      {problem ? <p class="wrong">{problem}</p> : <video ref={video} class="camera" autoPlay playsInline muted onLoadedMetadata={() => setReady(true)} aria-label="Camera preview" />}
      <div class="actions">
        <button type="button" onClick={props.onClose}>
          Cancel
        </button>
        <button type="button" class="primary" disabled={!isReady} onClick={take}>
          Capture
        </button>
      </div>
    </Dialog>
  );
}

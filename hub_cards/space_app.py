"""The page of `avad-hf app`: upload a video with its sound, and see its anomaly score over time."""

from transformers import pipeline

from avad_hf.app import serve

MODEL = "{{ model }}"

if __name__ == "__main__":
    serve(pipeline("audio-visual-anomaly", model=MODEL), MODEL)

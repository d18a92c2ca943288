"""What can go wrong on demand: the name of each fault, and the replies that need no computing."""

FAULTS = {
    "not_ready": "health/ready and infer answer 503 with a body",
    "starting": "503 on both until `ready_after`, then all is well",
    "ready_but_not_status": "health/ready answers 200 with status `starting`; infer 503",
    "reset_mid_body": "the TCP connection is reset after half of the body",
    "reset_before_reply": "the connection is closed without a response",
    "stall": "headers and the first bytes of the body, then silence",
    "silence": "no response until the client leaves",
    "truncated_base64": "complete JSON whose base64 ends inside a quantum",
    "bad_base64": "one character outside the base64 alphabet",
    "not_a_video": "valid base64 of a text",
    "html_502": "a proxy's HTML page with status 502",
    "error_500": "a backend failure in the family's shape",
    "guardrail": "422 in the family's shape, in a guardrail's words",
    "no_video": "200 without b64_video",
    "null_video": "200 with b64_video null",
    "huge": "`huge_bytes` of base64 with its Content-Length",
    "huge_chunked": "the same without Content-Length, so that only counting helps",
    "missing_seed": "a good reply without seed",
    "redirect": "infer answers 302 to `redirect_to`",
    "redirect_health": "health/ready answers 302 to `redirect_to`",
    "error_detail": "400 {detail: text}",
    "error_detail_list": "400 {detail: [{loc, msg}]}",
    "error_message": "400 {error: {message}}",
    "error_plain_message": "400 {message}",
    "error_errors": "400 {errors: [text]}",
    "error_problem": "400 application/problem+json {title, detail, status}",
    "error_title": "400 application/problem+json {title, status}",
    "error_text": "400 text/plain",
    "data_url": "b64_video with a data:video/mp4;base64, prefix",
    "not_json": "200 application/json whose body is no JSON",
    "slow_trickle": "the body in small pieces over `job_seconds`",
}

WORDS = "the loopback backend says no"

# name -> status, content type, body
CANNED = {
    "html_502": (502, "text/html", "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"),
    "no_video": (200, "application/json", '{"seed": 4}'),
    "null_video": (200, "application/json", '{"b64_video": null, "seed": 4}'),
    "not_json": (200, "application/json", "upstream says OK"),
    "error_detail": (400, "application/json", f'{{"detail": "{WORDS}"}}'),
    "error_detail_list": (
        400,
        "application/json",
        f'{{"detail": [{{"type": "value_error", "loc": ["body", "steps"], "msg": "{WORDS}", "input": 1}}]}}',
    ),
    "error_message": (400, "application/json", f'{{"error": {{"message": "{WORDS}", "type": "Error", "code": 400}}}}'),
    "error_plain_message": (400, "application/json", f'{{"message": "{WORDS}"}}'),
    "error_errors": (400, "application/json", f'{{"errors": ["{WORDS}"]}}'),
    "error_problem": (
        400,
        "application/problem+json",
        f'{{"title": "Bad Request", "detail": "{WORDS}", "status": 400}}',
    ),
    "error_title": (400, "application/problem+json", f'{{"title": "{WORDS}", "status": 400}}'),
    "error_text": (400, "text/plain", WORDS),
}

GUARDRAIL = "Guardrail: the prompt was blocked by the content safety filter (Blocklist)."
BACKEND = "Inference failed: CUDA error: an illegal memory access was encountered in the denoising step"

HEALTH_FAULTS = {"not_ready", "starting", "ready_but_not_status", "redirect_health"}
# Their replies hold no video, so none is drawn.
WITHOUT_VIDEO = {
    *CANNED,
    "redirect",
    "error_500",
    "guardrail",
    "silence",
    "reset_before_reply",
    "huge",
    "huge_chunked",
    "not_a_video",
}

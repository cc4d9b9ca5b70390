//! Two random choices, the less loaded wins.

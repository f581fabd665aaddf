//! The program itself: what it prints and with which code it leaves. Each case is a file in `cmd/`.

#[test]
fn the_program_says_what_is_wrong_and_leaves_with_the_code_for_it() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}

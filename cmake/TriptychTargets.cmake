# The two verbs of this build: triptych_library and triptych_test.

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
find_program(LLD ld.lld)
if(LLD)
  add_link_options(-fuse-ld=lld)
endif()
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>
                    $<$<COMPILE_LANGUAGE:CXX>:-Werror> $<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-field-initializers>
                    # GCC 12 sees uninitialised members of variants that are never read.
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized>)
# Results must not depend on which expressions a compiler chose to contract.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
if(TRIPTYCH_SANITIZER STREQUAL "asan")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(TRIPTYCH_SANITIZER STREQUAL "tsan")
  add_compile_options(-fsanitize=thread)
  add_link_options(-fsanitize=thread)
endif()

set(CMAKE_FIND_PACKAGE_PREFER_CONFIG ON)
find_package(Threads REQUIRED)
find_package(absl REQUIRED)

# triptych_library(NAME SRCS a.cc ... [DEPS x ...]): a static library triptych_NAME.
function(triptych_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(triptych_${name} STATIC ${ARG_SRCS})
  target_link_libraries(triptych_${name} PUBLIC ${ARG_DEPS})
endfunction()

# Seconds that one test case may take.
set(TRIPTYCH_TEST_TIMEOUT 600)
if(NOT TRIPTYCH_SANITIZER STREQUAL "")
  set(TRIPTYCH_TEST_TIMEOUT 1800)
endif()

# triptych_test(NAME SRCS a.cc ... [DEPS x ...] [LABELS l ...] [ENV K=V ...]): one Catch2 binary
# test_NAME. At test time cmake/discover_tests.cmake turns each test case into one ctest entry whose
# labels are its tags; LABELS are added to all of them.
function(triptych_test name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;LABELS;ENV" ${ARGN})
  add_executable(test_${name} ${ARG_SRCS})
  target_link_libraries(test_${name} PRIVATE ${ARG_DEPS} triptych_test_main)
  set_target_properties(test_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  set(script ${CMAKE_CURRENT_BINARY_DIR}/test_${name}_tests.cmake)
  add_custom_command(TARGET test_${name} POST_BUILD
    COMMAND ${CMAKE_COMMAND} -DTEST_BINARY=$<TARGET_FILE:test_${name}> -DOUTPUT=${script}
            "-DLABELS=${ARG_LABELS}" "-DENVIRONMENT=${ARG_ENV}" -DSOURCE_DIR=${CMAKE_SOURCE_DIR}
            -DTIMEOUT=${TRIPTYCH_TEST_TIMEOUT} -P ${CMAKE_SOURCE_DIR}/cmake/discover_tests.cmake
    VERBATIM)
  set(include_file ${CMAKE_CURRENT_BINARY_DIR}/test_${name}_include.cmake)
  file(WRITE ${include_file}
    "if(EXISTS \"${script}\")\n  include(\"${script}\")\nelse()\n  add_test(test_${name}_NOT_BUILT test_${name}_NOT_BUILT)\nendif()\n")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${include_file})
endfunction()

# An image is built without tests/.
if(TRIPTYCH_TESTS AND EXISTS ${CMAKE_SOURCE_DIR}/tests/support/catch_main.cc)
  add_library(triptych_test_main STATIC ${CMAKE_SOURCE_DIR}/tests/support/catch_main.cc)
endif()

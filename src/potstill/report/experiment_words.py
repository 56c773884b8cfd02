"""The words of an experiment's page in Korean, with the English terms of the field beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """A table of translations; a text that is not in it stays as it is."""

    texts: Mapping[str, str]

    @property
    def translates(self) -> bool:
        """Whether the page is not in English."""
        return bool(self.texts)

    def __call__(self, text: str) -> str:
        return self.texts.get(text, text)


KOREAN = {
    "What was measured": "측정 결과",
    "result": "모델",
    "seeds": "시드(seed) 수",
    "one seed": "시드 하나",
    "test accuracy, %": "테스트 정확도(accuracy), %",
    "test error, %": "테스트 오류율(error), %",
    "95 % interval": "95 % 신뢰구간",
    "each seed": "시드별",
    "parameters": "파라미터 수",
    "multiply-accumulates": "곱셈-누산 횟수(MACs)",
    "bytes": "바이트",
    "ms per image": "이미지당 ms",
    "lost, points": "정확도 손실(%p)",
    "training error, %": "학습 오류율, %",
    "bits": "비트 수",
    "rounding error of weights, %": "가중치 반올림 오차, %",
    "layers whose gradient is mostly 0, %": "기울기가 대부분 0이 된 층, %",
    "same answer as before, %": "원래 모델과 답이 같은 비율, %",
    "Goals": "목표",
    "met": "달성",
    "missed": "미달",
    "short by": "차이",
    "The statements of the lecture": "강의의 주장과 실제 결과",
    "holds": "맞음",
    "contradicted": "반대로 나옴",
    "undecided": "판정 불가",
    "not measured": "측정하지 않음",
    "Published figures": "논문에 보고된 값",
    "what": "항목",
    "published": "보고된 값",
    "source": "출처",
    "The recipe": "실험 레시피",
    "Images": "이미지",
    "Knobs": "바꿀 수 있는 값",
    "The steps: `potstill recipes show NAME`; a copy to change: `potstill recipes copy NAME`.": (
        "단계 전체는 `potstill recipes show NAME`으로 볼 수 있고, `potstill recipes copy NAME`으로 복사해 고쳐 쓸 수 "
        "있습니다."
    ),
    "How it was measured": "측정 방법",
    "Images of the first step": "첫 단계의 이미지 수",
    "train": "학습",
    "validation": "검증",
    "test": "테스트",
    "labelled": "레이블 있음",
    "unlabelled": "레이블 없음",
    "threads": "스레드",
    "Accuracy is that of the last epoch on the test split, which is evaluated once. Intervals are Student's t over "
    "seeds; for one seed, Wilson's over the test images.": (
        "정확도는 마지막 에포크(epoch)의 모델을 테스트 세트에서 한 번만 평가한 값입니다. 신뢰구간은 시드에 대한 "
        "스튜던트 t 구간이며, 시드가 하나이면 테스트 이미지에 대한 윌슨(Wilson) 구간입니다."
    ),
}
"""From English to Korean."""

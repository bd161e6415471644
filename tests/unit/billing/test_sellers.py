"""The seller on invoices: the company's registration number, where it is shown and stored."""

import io

import pytest
from pydantic import ValidationError
from pypdf import PdfReader

from services.billing.invoices.parties import Party
from services.billing.invoices.pdf import as_pdf
from services.billing.invoices.rendering import as_html
from tests.unit.billing.stored_invoices import SELLER, invoice

REGISTERED = SELLER.model_copy(update={"registration_number": "HRB 12345 B"})


def test_people_see_the_registration_number() -> None:
    shown = invoice(seller=REGISTERED)

    assert "Registration number HRB 12345 B" in as_html(shown)
    page = PdfReader(io.BytesIO(as_pdf(shown))).pages[0].extract_text()
    assert "Registration number HRB 12345 B" in page


def test_without_one_invoices_are_stored_and_shown_as_before() -> None:
    """The version before reads them, and it refuses members that it does not have."""
    assert set(SELLER.model_dump()) == {"name", "address", "country", "vat_id", "email"}
    assert "Registration number" not in as_html(invoice())
    assert Party.model_validate(REGISTERED.model_dump()) == REGISTERED


@pytest.mark.parametrize("given", ["", "  ", "HRB\n1", "1" * 65, 12345])
def test_an_invalid_one_is_refused(given: object) -> None:
    with pytest.raises(ValidationError, match="registration_number"):
        Party.model_validate({"name": "Modelle GmbH", "registration_number": given})


def test_spaces_around_it_are_removed() -> None:
    seller = Party.model_validate({"name": "S", "registration_number": " HRB 1 "})

    assert seller.registration_number == "HRB 1"
